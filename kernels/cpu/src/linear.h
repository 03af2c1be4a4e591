// The dense ops: norm, products, embedding. Shapes are checked by the caller.
#pragma once

#include "context.h"

namespace ktchat {

constexpr int kMaxWeights = 4;

// One product of `norm_linear`: y (n, rows) = normed x @ weight.T + bias.
struct Product {
    const Matrix* weight;
    float* y;
    const float* bias;  // or null
};

void norm(Context& c, const float* x, int64_t n, int64_t cols, const float* weight, float eps,
          float* y);
// y = (y + norm(x)) * factor
void norm_add(Context& c, const float* x, int64_t n, int64_t cols, const float* weight, float eps,
              float factor, float* y);
void zeros(Context& c, float* y, int64_t count);
void soft_cap(Context& c, float* x, int64_t count, float cap);
void norm_linear(Context& c, const float* x, int64_t n, int64_t cols, const float* norm, float eps,
                 const Product* products, int count);
// `bias` may be null.
void linear_add(Context& c, const float* x, int64_t n, const Matrix& weight, float* residual,
                const float* bias);
// Rows of the table times `factor`.
Status embed(Context& c, const Matrix& table, const int32_t* tokens, int64_t n, float factor,
             float* y);

}  // namespace ktchat
