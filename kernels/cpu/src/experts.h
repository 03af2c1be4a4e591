// Routing and SwiGLU feed-forward, routed or dense. Shapes are checked by the caller.
#pragma once

#include "context.h"

namespace ktchat {

// kernels.ops.Routing
struct Routing {
    int64_t top_k;
    int64_t groups;
    int64_t top_groups;
    float scale;
    float floor;
    int32_t gating;
    int32_t normalise;
};

// Routing::gating, in the order of kernels.parameters.Gating.
enum Gating : int32_t { kSoftmax, kSigmoid, kSoftmaxOfChosen };

// The matrices of one or several experts, float32 stacks of one row that are added to their
// products, or null, and what makes a hidden row of a gate's and an up's.
struct Experts {
    const Matrix& gate;
    const Matrix& up;
    const Matrix& down;
    const Matrix* gate_bias = nullptr;
    const Matrix* up_bias = nullptr;
    const Matrix* down_bias = nullptr;
    int64_t activation = 0;
};

// One number an expert each; any may be null.
struct RouterVectors {
    const float* bias;        // of scores, for the choice
    const float* logit_bias;  // of logits
    const float* scales;      // factors of weights
};

void route(Context& c, const float* x, int64_t n, const float* norm, float eps,
           const Matrix& router, const RouterVectors& vectors, const Routing& routing,
           float* normed, int32_t* ids, float* weights);

// kBadArgument for an activation that is not there, or a bias that is no float32.
Status moe_add(Context& c, const float* x, int64_t n, const int32_t* ids, const float* weights,
               int64_t top_k, const Experts& experts, float* residual);
Status ffn_add(Context& c, const float* x, int64_t n, const Experts& experts, const float* scaler,
               float* residual);

}  // namespace ktchat
