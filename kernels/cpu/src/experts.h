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
    int32_t sigmoid;  // else softmax
    int32_t normalise;
};

void route(Context& c, const float* x, int64_t n, const float* norm, float eps,
           const Matrix& router, const float* bias, const Routing& routing, float* normed,
           int32_t* ids, float* weights);

Status moe_add(Context& c, const float* x, int64_t n, const int32_t* ids, const float* weights,
               int64_t top_k, const Matrix& gate, const Matrix& up, const Matrix& down,
               float* residual);
void ffn_add(Context& c, const float* x, int64_t n, const Matrix& gate, const Matrix& up,
             const Matrix& down, const float* scaler, float* residual);

}  // namespace ktchat
