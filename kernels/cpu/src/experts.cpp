// The fused mixture of experts: every chosen expert of a layer is one work list, in four phases:
// pack x; gate and up with SwiGLU; pack the hidden rows; down with the weighted sum. Where `down`
// has repacked tiles the hidden rows are packed as they are computed, and the third phase is empty.

#include "experts.h"

#include <cstring>

#include "product.h"

namespace ktchat {
namespace {

// (token, expert) pairs sorted by expert, tokens ascending: expert `ids[i]` has the pairs
// first[i] .. first[i + 1] - 1. Sums over a token's experts run in this order.
struct Pairs {
    int64_t experts = 0;
    int64_t count = 0;
    int32_t* ids;
    int64_t* first;
    int32_t* token;
    float* weight;

    Pairs(Context& c, int64_t max_experts, int64_t max_pairs)
        : ids(c.arena.take<int32_t>(max_experts)),
          first(c.arena.take<int64_t>(max_experts + 1)),
          token(c.arena.take<int32_t>(max_pairs)),
          weight(c.arena.take<float>(max_pairs)) {}
};

// Groups the choices by expert (a counting sort); -1 is no expert.
void group(Context& c, const int32_t* ids, const float* weights, int64_t n, int64_t top_k,
           int64_t experts, Pairs& pairs) {
    auto* next = c.arena.take<int64_t>(experts);
    std::fill(next, next + experts, 0);
    for (int64_t i = 0; i < n * top_k; i++) {
        if (ids[i] >= 0) next[ids[i]]++;
    }
    for (int64_t e = 0; e < experts; e++) {
        const int64_t uses = next[e];
        next[e] = pairs.count;
        if (uses == 0) continue;
        pairs.ids[pairs.experts] = static_cast<int32_t>(e);
        pairs.first[pairs.experts++] = pairs.count;
        pairs.count += uses;
    }
    pairs.first[pairs.experts] = pairs.count;
    for (int64_t i = 0; i < n * top_k; i++) {
        if (ids[i] < 0) continue;
        const int64_t at = next[ids[i]]++;
        pairs.token[at] = static_cast<int32_t>(i / top_k);
        pairs.weight[at] = weights[i];
    }
}

// Row of an expert in a stack of biases, or null.
const float* bias_of(const Matrix* biases, int64_t expert) {
    return biases ? reinterpret_cast<const float*>(biases->row(expert, 0)) : nullptr;
}

Status check(const Experts& w) {
    for (const Matrix* biases : {w.gate_bias, w.up_bias, w.down_bias}) {
        if (biases && biases->type != kF32) return kBadArgument;
    }
    return w.activation < 0 || w.activation >= kActivations ? kBadArgument : kOk;
}

// The rows of x that the pairs want, in one format.
const void* const* gather(Context& c, const Inputs& inputs, Format format, const Pairs& pairs) {
    auto* rows = c.arena.take<const void*>(pairs.count);
    for (int64_t p = 0; p < pairs.count; p++) rows[p] = inputs.rows(format)[pairs.token[p]];
    return rows;
}

// done(r, rows, t, hidden): the activation of gate x and up x, of rows [r, r + rows) and token t,
// for all rows [begin, end) and all tokens of one expert.
template <class Done>
void gate_up(const Context& c, const Experts& w, int64_t expert, int64_t begin, int64_t end,
             const void* const* gate_x, const void* const* up_x, int64_t tokens, const Done& done) {
    alignas(64) float gate[kTileFloats];
    alignas(64) float up[kTileFloats];
    const float* gate_bias = bias_of(w.gate_bias, expert);
    const float* up_bias = bias_of(w.up_bias, expert);
    const int64_t tile = tile_rows(w.gate, tokens);
    for (int64_t r = begin; r < end; r += tile) {
        const int rows = static_cast<int>(std::min(tile, end - r));
        const uint8_t* gate_rows = w.gate.row(expert, r);
        const uint8_t* up_rows = w.up.row(expert, r);
        for (int64_t t = 0; t < tokens; t += kTokenTile) {
            const int count = static_cast<int>(std::min<int64_t>(kTokenTile, tokens - t));
            const uint8_t* next = r + rows < end ? w.gate.row(expert, r + rows) : nullptr;
            w.gate.kernel(w.gate, gate_rows, rows, up_rows, gate_x + t, count, gate);
            w.up.kernel(w.up, up_rows, rows, next, up_x + t, count, up);
            for (int k = 0; k < count; k++) {
                if (gate_bias) c.kernels->add_scaled(gate + k * rows, 1.0f, gate_bias + r, rows);
                if (up_bias) c.kernels->add_scaled(up + k * rows, 1.0f, up_bias + r, rows);
            }
            c.kernels->activations[w.activation](gate, up, static_cast<int64_t>(rows) * count);
            for (int k = 0; k < count; k++) done(r, rows, t + k, gate + k * rows);
        }
    }
}

// residual += weighted sum over the pairs of their down products, for rows [begin, end). `sums` has
// n * (end - begin) floats. Expert by expert, so that each one's rows are one stretch of memory and
// its inputs stay near while they pass.
void down_add(const Context& c, const Experts& w, const Pairs& pairs, int64_t begin, int64_t end,
              const void* const* hidden, int64_t n, float* sums, float* residual) {
    const Matrix& down = w.down;
    const int64_t height = end - begin;
    std::fill(sums, sums + n * height, 0.0f);
    for (int64_t e = 0; e < pairs.experts; e++) {
        const int64_t first = pairs.first[e], tokens = pairs.first[e + 1] - first;
        const float* bias = bias_of(w.down_bias, pairs.ids[e]);
        const uint8_t* next = e + 1 < pairs.experts ? down.row(pairs.ids[e + 1], begin) : nullptr;
        product(
            down, pairs.ids[e], begin, end, hidden + first, tokens,
            [&](int64_t r, int rows, int64_t t, int count, const float* y) {
                for (int k = 0; k < count; k++) {
                    const int64_t p = first + t + k;
                    float* sum = sums + pairs.token[p] * height + (r - begin);
                    c.kernels->add_scaled(sum, pairs.weight[p], y + k * rows, rows);
                    if (bias) c.kernels->add_scaled(sum, pairs.weight[p], bias + r, rows);
                }
            },
            next);
    }
    for (int64_t t = 0; t < n; t++) {
        c.kernels->add_scaled(residual + t * down.rows + begin, 1.0f, sums + t * height, height);
    }
}

// Rows of a chunk of `down_add`: long stretches stream better, but every thread should get some
// chunks.
int64_t down_rows(const Matrix& down, int64_t n, int threads) {
    constexpr int64_t kLongest = 128;  // sums of 512 tokens then still fit the second-level cache
    const int64_t tile = tile_rows(down, n);
    const int64_t fair = down.rows / (4 * threads) / tile * tile;
    return std::max(tile, std::min(kLongest, fair));
}

// With `scaler`, a pair's weight is sigmoid(x . scaler) of its token.
void add_experts(Context& c, const float* x, int64_t n, Pairs& pairs, const Experts& w,
                 const float* scaler, float* residual) {
    const int64_t width = w.gate.rows;
    const Inputs inputs(c, x, n, w.gate.cols, format_bit(w.gate) | format_bit(w.up));
    const auto gate_x = gather(c, inputs, w.gate.format, pairs);
    const auto up_x = w.up.format == w.gate.format ? gate_x : gather(c, inputs, w.up.format, pairs);
    const int64_t tokens_an_expert = (pairs.count + pairs.experts - 1) / pairs.experts;
    // The rows of a tile depend on an expert's tokens: whole groups of 32 columns come only
    // with repacked tiles.
    const bool pack_at_once = w.down.format == kTile16 && w.gate.tile16;
    float* hidden = pack_at_once ? nullptr : c.arena.take<float>(pairs.count * width);
    const Inputs packed(c, hidden, pairs.count, width, format_bit(w.down));
    const RowChunks up_cut(c, w.gate, tokens_an_expert, 2, pairs.experts);
    const int64_t down_step = down_rows(w.down, n, c.pool.threads());
    const int64_t sums_size = n * down_step;
    const int64_t down_chunks = (w.down.rows + down_step - 1) / down_step;
    float* sums = c.arena.take<float>(sums_size * c.pool.threads());

    const auto prepare = [&](int64_t t, int) {
        inputs.pack(t);
        if (!scaler) return;
        float scale = c.kernels->dot(x + t * w.gate.cols, scaler, w.gate.cols);
        c.kernels->sigmoid(&scale, 1);
        pairs.weight[t] = scale;
    };
    const Shares up_shares(c.pool.threads(), {up_cut.count()}, pairs.experts);
    const auto expand = [&](int64_t chunk, int) {
        const auto [e, part] = up_shares.at(chunk);
        const int64_t first = pairs.first[e];
        const int owner = c.pool.owner(chunk, up_shares.count());
        for (const Matrix* m : {&w.gate, &w.up}) {
            c.owners.note(*m, pairs.ids[e], up_cut.begin(part), up_cut.end(part), owner, true);
        }
        gate_up(c, w, pairs.ids[e], up_cut.begin(part), up_cut.end(part), gate_x + first,
                up_x + first, pairs.first[e + 1] - first,
                [&](int64_t r, int rows, int64_t t, const float* y) {
                    if (pack_at_once) {
                        void* row = const_cast<void*>(packed.rows(kTile16)[first + t]);
                        c.kernels->quantise_tile16_part(y, row, width, r, rows);
                    } else {
                        std::memcpy(hidden + (first + t) * width + r, y,
                                    static_cast<size_t>(rows) * sizeof(float));
                    }
                });
    };
    const auto repack = [&](int64_t p, int) { packed.pack(p); };
    const auto contract = [&](int64_t chunk, int worker) {
        const int64_t begin = chunk * down_step, end = std::min(w.down.rows, begin + down_step);
        const int owner = c.pool.owner(chunk, down_chunks);
        for (int64_t e = 0; e < pairs.experts; e++) {
            c.owners.note(w.down, pairs.ids[e], begin, end, owner, true);
        }
        down_add(c, w, pairs, begin, end, packed.rows(w.down.format), n,
                 sums + worker * sums_size, residual);
    };
    c.pool.run({phase(inputs.needs_packing() || scaler ? n : 0, prepare),
                phase(up_shares.count(), expand),
                phase(packed.needs_packing() && !pack_at_once ? pairs.count : 0, repack),
                phase(down_chunks, contract)});
}

}  // namespace

Status moe_add(Context& c, const float* x, int64_t n, const int32_t* ids, const float* weights,
               int64_t top_k, const Experts& experts, float* residual) {
    if (const Status status = check(experts)) return status;
    const int64_t count = experts.gate.count;
    for (int64_t i = 0; i < n * top_k; i++) {
        if (ids[i] < -1 || ids[i] >= count) return kBadIndex;
    }
    c.arena.reset();
    Pairs pairs(c, count, n * top_k);
    group(c, ids, weights, n, top_k, count, pairs);
    if (pairs.count) add_experts(c, x, n, pairs, experts, nullptr, residual);
    return kOk;
}

Status ffn_add(Context& c, const float* x, int64_t n, const Experts& experts, const float* scaler,
               float* residual) {
    if (const Status status = check(experts)) return status;
    c.arena.reset();
    Pairs pairs(c, 1, n);
    pairs.experts = 1;
    pairs.count = n;
    pairs.ids[0] = 0;
    pairs.first[0] = 0;
    pairs.first[1] = n;
    for (int64_t t = 0; t < n; t++) {
        pairs.token[t] = static_cast<int32_t>(t);
        pairs.weight[t] = 1.0f;
    }
    add_experts(c, x, n, pairs, experts, scaler, residual);
    return kOk;
}

}  // namespace ktchat
