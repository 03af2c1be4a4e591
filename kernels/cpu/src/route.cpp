// The router: RMSNorm, logits, choice. As llama.cpp's build_moe_ffn; ties go to the lower index.

#include <cmath>
#include <cstring>

#include "experts.h"
#include "product.h"

namespace ktchat {
namespace {

// Indices of the `count` largest of scores[0 .. n), best first; taken ones are marked. A
// not-a-number counts as the lowest score, so that there is always an answer.
template <class Take>
void choose(const float* scores, int64_t n, int64_t count, uint8_t* taken, const Take& take) {
    for (int64_t k = 0; k < count; k++) {
        int64_t best = -1;
        float top = 0;
        for (int64_t i = 0; i < n; i++) {
            const float score = std::isnan(scores[i]) ? -INFINITY : scores[i];
            if (taken[i] || (best >= 0 && !(score > top))) continue;
            best = i;
            top = score;
        }
        taken[best] = 1;
        take(k, best, top);
    }
}

// Forbids the experts outside the best groups; a group's score is the sum of its two best.
void limit_groups(const Routing& r, int64_t experts, const float* scores, uint8_t* marks,
                  float* group_scores, float* allowed) {
    const int64_t size = experts / r.groups;
    for (int64_t g = 0; g < r.groups; g++) {
        float total = 0;
        std::memset(marks, 0, static_cast<size_t>(size));
        choose(scores + g * size, size, std::min<int64_t>(2, size), marks,
               [&](int64_t, int64_t, float score) { total += score; });
        group_scores[g] = total;
    }
    std::fill(allowed, allowed + experts, -INFINITY);
    std::memset(marks, 0, static_cast<size_t>(r.groups));
    choose(group_scores, r.groups, r.top_groups, marks, [&](int64_t, int64_t g, float) {
        std::memcpy(allowed + g * size, scores + g * size,
                    static_cast<size_t>(size) * sizeof(float));
    });
}

// One token: logits (overwritten) to expert ids and weights. `scratch` holds 3 * experts floats.
void choose_experts(const Kernels& kernels, const Routing& r, int64_t experts, float* logits,
                    const RouterVectors& vectors, float* scratch, uint8_t* marks, int32_t* ids,
                    float* weights) {
    if (r.gating == kSigmoid) kernels.sigmoid(logits, experts);
    if (r.gating == kSoftmax) kernels.softmax(logits, experts);
    const float* bias = vectors.bias;
    const float* scores = logits;
    const float* biased = scores;
    if (bias) {
        for (int64_t e = 0; e < experts; e++) scratch[e] = scores[e] + bias[e];
        biased = scratch;
    }
    if (r.groups > 1) {
        limit_groups(r, experts, biased, marks, scratch + experts, scratch + 2 * experts);
        biased = scratch + 2 * experts;
    }
    std::memset(marks, 0, static_cast<size_t>(experts));
    choose(biased, experts, r.top_k, marks, [&](int64_t k, int64_t expert, float) {
        ids[k] = static_cast<int32_t>(expert);
        weights[k] = scores[expert];
    });
    if (r.gating == kSoftmaxOfChosen) kernels.softmax(weights, r.top_k);
    float total = 0;
    for (int64_t k = 0; k < r.top_k; k++) total += weights[k];
    const float divisor = r.normalise ? std::max(total, r.floor) : 1.0f;
    for (int64_t k = 0; k < r.top_k; k++) {
        weights[k] = weights[k] / divisor * r.scale * (vectors.scales ? vectors.scales[ids[k]] : 1.0f);
    }
}

}  // namespace

void route(Context& c, const float* x, int64_t n, const float* norm, float eps,
           const Matrix& router, const RouterVectors& vectors, const Routing& routing,
           float* normed, int32_t* ids, float* weights) {
    c.arena.reset();
    const int64_t cols = router.cols, experts = router.rows;
    float* logits = c.arena.take<float>(n * experts);
    float* scratch = c.arena.take<float>(3 * experts * c.pool.threads());
    uint8_t* marks = c.arena.take<uint8_t>(experts * c.pool.threads());
    const Inputs inputs(c, normed, n, cols, format_bit(router));
    const RowChunks cut(c, router, n);

    const auto prepare = [&](int64_t t, int) {
        c.kernels->rms_norm(x + t * cols, norm, eps, cols, normed + t * cols);
        inputs.pack(t);
    };
    const auto multiply = [&](int64_t chunk, int) {
        product(router, 0, cut.begin(chunk), cut.end(chunk), inputs.rows(router.format), n,
                [&](int64_t r, int rows, int64_t t, int tokens, const float* y) {
                    for (int k = 0; k < tokens; k++) {
                        std::memcpy(logits + (t + k) * experts + r, y + k * rows,
                                    static_cast<size_t>(rows) * sizeof(float));
                    }
                });
    };
    const auto choice = [&](int64_t t, int worker) {
        if (vectors.logit_bias) {
            c.kernels->add_scaled(logits + t * experts, 1.0f, vectors.logit_bias, experts);
        }
        choose_experts(*c.kernels, routing, experts, logits + t * experts, vectors,
                       scratch + worker * 3 * experts, marks + worker * experts,
                       ids + t * routing.top_k, weights + t * routing.top_k);
    };
    c.pool.run({phase(n, prepare), phase(cut.count(), multiply), phase(n, choice)});
}

}  // namespace ktchat
