#include "linear.h"

#include <algorithm>
#include <cstring>

#include "product.h"

namespace ktchat {
namespace {

constexpr int64_t kChunkFloats = 1 << 14;  // of what is done feature by feature

// body(first, count) for stretches of 0 .. count - 1.
template <class Body>
void each_stretch(Context& c, int64_t count, const Body& body) {
    const auto part = [&](int64_t chunk, int) {
        const int64_t first = chunk * kChunkFloats;
        body(first, std::min(kChunkFloats, count - first));
    };
    c.pool.run({phase((count + kChunkFloats - 1) / kChunkFloats, part)});
}

}  // namespace

void norm(Context& c, const float* x, int64_t n, int64_t cols, const float* weight, float eps,
          float* y) {
    const auto row = [&](int64_t t, int) {
        c.kernels->rms_norm(x + t * cols, weight, eps, cols, y + t * cols);
    };
    c.pool.run({phase(n, row)});
}

void norm_add(Context& c, const float* x, int64_t n, int64_t cols, const float* weight, float eps,
              float factor, float* y) {
    const auto row = [&](int64_t t, int) {
        c.kernels->norm_add(x + t * cols, weight, eps, factor, cols, y + t * cols);
    };
    c.pool.run({phase(n, row)});
}

void zeros(Context& c, float* y, int64_t count) {
    each_stretch(c, count, [&](int64_t first, int64_t some) { std::fill_n(y + first, some, 0.0f); });
}

void soft_cap(Context& c, float* x, int64_t count, float cap) {
    each_stretch(c, count,
                 [&](int64_t first, int64_t some) { c.kernels->soft_cap(x + first, cap, some); });
}

void norm_linear(Context& c, const float* x, int64_t n, int64_t cols, const float* norm, float eps,
                 const Product* products, int count) {
    c.arena.reset();
    float* normed = norm ? c.arena.take<float>(n * cols) : nullptr;
    unsigned formats = 0;
    Shares shares(c.pool.threads(), {}, 1);
    for (int i = 0; i < count; i++) {
        formats |= format_bit(*products[i].weight);
        shares.add(RowChunks(c, *products[i].weight, n).count());
    }
    const Inputs inputs(c, norm ? normed : x, n, cols, formats);

    const auto prepare = [&](int64_t t, int) {
        if (norm) c.kernels->rms_norm(x + t * cols, norm, eps, cols, normed + t * cols);
        inputs.pack(t);
    };
    const auto multiply = [&](int64_t chunk, int) {
        const auto [i, part] = shares.at(chunk);
        const Product& p = products[i];
        const Matrix& m = *p.weight;
        const RowChunks cut(c, m, n);
        const int owner = c.pool.owner(chunk, shares.count());
        c.owners.note(m, 0, cut.begin(part), cut.end(part), owner, true);
        product(m, 0, cut.begin(part), cut.end(part), inputs.rows(m.format), n,
                [&](int64_t r, int rows, int64_t t, int tokens, float* y) {
                    for (int k = 0; k < tokens; k++, y += rows) {
                        if (p.bias) c.kernels->add_scaled(y, 1.0f, p.bias + r, rows);
                        std::memcpy(p.y + (t + k) * m.rows + r, y,
                                    static_cast<size_t>(rows) * sizeof(float));
                    }
                });
    };
    const bool needs_preparing = norm || inputs.needs_packing();
    c.pool.run({phase(needs_preparing ? n : 0, prepare), phase(shares.count(), multiply)});
}

void linear_add(Context& c, const float* x, int64_t n, const Matrix& m, float* residual,
                const float* bias) {
    c.arena.reset();
    const Inputs inputs(c, x, n, m.cols, format_bit(m));
    const RowChunks cut(c, m, n);
    const auto prepare = [&](int64_t t, int) { inputs.pack(t); };
    const auto multiply = [&](int64_t chunk, int) {
        const int owner = c.pool.owner(chunk, cut.count());
        c.owners.note(m, 0, cut.begin(chunk), cut.end(chunk), owner, true);
        product(m, 0, cut.begin(chunk), cut.end(chunk), inputs.rows(m.format), n,
                [&](int64_t r, int rows, int64_t t, int tokens, float* y) {
                    for (int k = 0; k < tokens; k++, y += rows) {
                        if (bias) c.kernels->add_scaled(y, 1.0f, bias + r, rows);
                        c.kernels->add_scaled(residual + (t + k) * m.rows + r, 1.0f, y, rows);
                    }
                });
    };
    c.pool.run({phase(inputs.needs_packing() ? n : 0, prepare), phase(cut.count(), multiply)});
}

Status embed(Context& c, const Matrix& table, const int32_t* tokens, int64_t n, float factor,
             float* y) {
    if (table.tile16) return kBadArgument;  // rows are not there one by one
    for (int64_t t = 0; t < n; t++) {
        if (tokens[t] < 0 || tokens[t] >= table.rows) return kBadIndex;
    }
    const auto row = [&](int64_t t, int) {
        const uint8_t* source = table.row(0, tokens[t]);
        float* target = y + t * table.cols;
        const auto* narrow = reinterpret_cast<const uint16_t*>(source);
        switch (table.type) {
            case kF32:
                std::memcpy(target, source, table.row_bytes);
                break;
            case kF16:
                c.kernels->from_half(narrow, target, table.cols);
                break;
            case kBF16:
                c.kernels->from_bfloat(narrow, target, table.cols);
                break;
            default:
                table.row_to_float(source, target, table.cols);
        }
        for (int64_t i = 0; factor != 1.0f && i < table.cols; i++) target[i] *= factor;
    };
    c.pool.run({phase(n, row)});
    return kOk;
}

}  // namespace ktchat
