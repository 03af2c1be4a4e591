// The gated delta net (Yang, Kautz and Hatamizadeh, 2024, arXiv:2412.06464). A few tokens go one
// by one; more of them in chunks (arXiv:2406.06484), whose arithmetic is small dense products.
// Which of the two depends on n alone, never on the number of threads, so neither do the results.

#include "recurrent.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace ktchat {
namespace {

constexpr int64_t kMostSteps = 6;         // tokens that are faster one by one
constexpr int64_t kPassTokens = 128;      // whose features stay in a cache between the phases
constexpr int64_t kLine = 16;             // floats of a cache line
constexpr int64_t kCopyFloats = 1 << 18;  // of a chunk of clear and copy
constexpr int64_t kGateFloats = 1 << 12;  // of a chunk of sigmoid_gate

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// log(1 + e^x)
double softplus(double x) { return x > 40 ? x : std::log1p(std::exp(x)); }

float sigmoid(float x) { return static_cast<float>(1 / (1 + std::exp(-static_cast<double>(x)))); }

// What the state's matrix is multiplied by, e^log.
Decay make_decay(double log) {
    if (log > -0.69) return {1, static_cast<float>(std::expm1(log))};
    return {0, static_cast<float>(std::exp(log))};
}

// The work on at most kPassTokens: the features of all heads after convolution and SiLU, each head's tokens
// together. `rows` are the tokens and, when they go in chunks, tokens of zeros up to whole tiles,
// which change no state.
struct Pass {
    const DeltaNetTokens& tokens;
    const DeltaNetWeights& weights;
    const float eps;
    const RecurrentState& state;
    const int64_t layer;
    const DeltaNet& net = state.net;
    const int64_t n = tokens.n;
    const bool stepped = n <= kMostSteps;
    const int64_t rows = stepped ? n : round_up(n, kChunkRows);
    const int64_t chunks = (rows + kChunk - 1) / kChunk;
    const int64_t value_stride = net.panels() * kPanel;
    float* q = nullptr;          // (key_heads, rows, key)
    float* k = nullptr;          // alike
    float* v = nullptr;          // (value_heads, rows, value_stride); becomes the heads' outputs
    float* k_columns = nullptr;  // (key_heads, chunks, key, kChunk)
    float* kk = nullptr;         // (key_heads, rows, kChunk)
    float* qk = nullptr;         // alike

    void take_memory(Arena& arena) {
        q = arena.take<float>(net.key_heads * rows * net.key);
        k = arena.take<float>(net.key_heads * rows * net.key);
        v = arena.take<float>(net.value_heads * rows * value_stride);
        if (stepped) return;
        k_columns = arena.take<float>(net.key_heads * chunks * net.key * kChunk);
        kk = arena.take<float>(net.key_heads * rows * kChunk);
        qk = arena.take<float>(net.key_heads * rows * kChunk);
    }

    int chunk_rows(int64_t chunk) const {
        return static_cast<int>(std::min<int64_t>(kChunk, rows - chunk * kChunk));
    }

    // The natural logarithm of the decay.
    double log_decay(int64_t token, int64_t head) const {
        const float alpha = tokens.alpha[token * net.value_heads + head];
        const double x = static_cast<double>(alpha) + static_cast<double>(weights.dt[head]);
        return static_cast<double>(weights.a[head]) * softplus(x);
    }
    float rate(int64_t token, int64_t head) const {
        return sigmoid(tokens.beta[token * net.value_heads + head]);
    }

    // A query head, key head or value head, numbered in this order.
    void mix(const Kernels& kernels, int64_t head) const {
        const bool is_value = head >= 2 * net.key_heads;
        const int64_t own = is_value ? head - 2 * net.key_heads : head % net.key_heads;
        const int64_t features = is_value ? net.value : net.key;
        const int64_t stride = is_value ? value_stride : net.key;
        const int64_t first = is_value ? 2 * net.key_heads * net.key + own * features
                                       : head * features;
        float* y = (is_value ? v : head < net.key_heads ? q : k) + own * rows * stride;
        kernels.short_convolution({tokens.qkv + first, net.conv_features(), n,
                                   state.conv(layer) + first, weights.conv + first * net.kernel,
                                   static_cast<int>(net.kernel), features, y, stride});
        std::fill(y + n * stride, y + rows * stride, 0.0f);
        if (is_value) {
            for (int64_t t = 0; t < n; t++) {
                std::fill(y + t * stride + features, y + (t + 1) * stride, 0.0f);
            }
            return;
        }
        const float scale =
            head < net.key_heads ? 1 / std::sqrt(static_cast<float>(net.key)) : 1.0f;
        for (int64_t t = 0; t < n; t++) kernels.unit(y + t * stride, scale, eps, features);
    }

    // What a chunk's tokens of one key head have with each other.
    void relate(const Kernels& kernels, int64_t key_head, int64_t chunk) const {
        const int64_t row = key_head * rows + chunk * kChunk;
        kernels.delta_products(q + row * net.key, k + row * net.key, chunk_rows(chunk),
                               static_cast<int>(net.key), columns(key_head, chunk),
                               kk + row * kChunk, qk + row * kChunk);
    }
    float* columns(int64_t key_head, int64_t chunk) const {
        return k_columns + (key_head * chunks + chunk) * net.key * kChunk;
    }

    void step_head(const Kernels& kernels, int64_t head) const {
        Decay decays[kMostSteps];
        float rates[kMostSteps];
        for (int64_t t = 0; t < n; t++) {
            decays[t] = make_decay(log_decay(t, head));
            rates[t] = rate(t, head);
        }
        const int64_t row = net.key_head(head) * rows * net.key;
        kernels.delta_steps({q + row, k + row, v + head * rows * value_stride, decays, rates,
                             state.matrix(layer, head), static_cast<int>(n),
                             static_cast<int>(net.key), static_cast<int>(net.panels())});
        finish(kernels, head, 0, n);
    }

    void chunk_head(const Kernels& kernels, int64_t head) const {
        const int64_t key_head = net.key_head(head);
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            const int own_rows = chunk_rows(chunk);
            double logs[kChunk];
            float rates[kChunk];
            double log = 0;
            for (int i = 0; i < own_rows; i++) {
                const int64_t t = chunk * kChunk + i;
                if (t < n) log += log_decay(t, head);
                logs[i] = log;
                rates[i] = t < n ? rate(t, head) : 0;
            }
            const int64_t row = key_head * rows + chunk * kChunk;
            const int64_t own_row = head * rows + chunk * kChunk;
            kernels.delta_chunk({q + row * net.key, k + row * net.key, columns(key_head, chunk),
                                 kk + row * kChunk, qk + row * kChunk, v + own_row * value_stride,
                                 logs, make_decay(log), rates, state.matrix(layer, head), own_rows,
                                 static_cast<int>(net.key), static_cast<int>(net.panels())});
            finish(kernels, head, chunk * kChunk, std::min(n, (chunk + 1) * kChunk));
        }
    }

    // Norm and gate of a head's outputs.
    void finish(const Kernels& kernels, int64_t head, int64_t first, int64_t end) const {
        for (int64_t t = first; t < end; t++) {
            const int64_t at = (t * net.value_heads + head) * net.value;
            kernels.gated_norm(v + (head * rows + t) * value_stride, weights.norm, tokens.z + at,
                               eps, net.value, tokens.out + at);
        }
    }
};

void run(Context& c, Pass pass) {
    c.arena.reset();
    pass.take_memory(c.arena);
    const DeltaNet& net = pass.net;
    const auto mix = [&](int64_t head, int) { pass.mix(*c.kernels, head); };
    const auto relate = [&](int64_t chunk, int) {
        pass.relate(*c.kernels, chunk / pass.chunks, chunk % pass.chunks);
    };
    const auto attend = [&](int64_t head, int) {
        pass.stepped ? pass.step_head(*c.kernels, head) : pass.chunk_head(*c.kernels, head);
    };
    const Phase mixing = phase(2 * net.key_heads + net.value_heads, mix);
    const Phase attending = phase(net.value_heads, attend);
    if (pass.stepped) {
        c.pool.run({mixing, attending});
    } else {
        c.pool.run({mixing, phase(net.key_heads * pass.chunks, relate), attending});
    }
}

}  // namespace

void delta_net(Context& c, const DeltaNetTokens& tokens, const DeltaNetWeights& weights, float eps,
               const RecurrentState& state, int64_t layer) {
    const DeltaNet& net = state.net;
    const int64_t values = net.value_heads * net.value;
    for (int64_t t = 0; t < tokens.n; t += kPassTokens) {
        const DeltaNetTokens part{tokens.qkv + t * net.conv_features(),
                                  std::min(kPassTokens, tokens.n - t),
                                  tokens.z + t * values,
                                  tokens.alpha + t * net.value_heads,
                                  tokens.beta + t * net.value_heads,
                                  tokens.out + t * values};
        run(c, Pass{part, weights, eps, state, layer});
    }
}

void sigmoid_gate(Context& c, float* x, const float* gate, int64_t count) {
    const auto part = [&](int64_t chunk, int) {
        const int64_t at = chunk * kGateFloats;
        c.kernels->sigmoid_gate(x + at, gate + at, std::min(kGateFloats, count - at));
    };
    c.pool.run({phase((count + kGateFloats - 1) / kGateFloats, part)});
}

// ---- the state ----------------------------------------------------------------------------------

RecurrentState::RecurrentState(const DeltaNet& net_, int64_t layers, int64_t slots)
    : net(net_), layers_(layers) {
    conv_floats_ = round_up((net.kernel - 1) * net.conv_features(), kLine);
    layer_floats_ = conv_floats_ + net.value_heads * net.panels() * net.key * kPanel;
    bytes_ = static_cast<size_t>(slots * slot_floats()) * sizeof(float);
    data_ = reinterpret_cast<float*>(map_memory(bytes_));
}

RecurrentState::~RecurrentState() { munmap(data_, bytes_); }

void RecurrentState::clear(Context& c) {
    const auto part = [&](int64_t chunk, int) {
        const int64_t at = chunk * kCopyFloats;
        std::fill(data_ + at, data_ + std::min(at + kCopyFloats, slot_floats()), 0.0f);
    };
    c.pool.run({phase((slot_floats() + kCopyFloats - 1) / kCopyFloats, part)});
}

void RecurrentState::copy(Context& c, int64_t source, int64_t target) {
    if (source == target) return;
    const float* from = data_ + source * slot_floats();
    float* to = data_ + target * slot_floats();
    const auto part = [&](int64_t chunk, int) {
        const int64_t at = chunk * kCopyFloats;
        std::copy(from + at, from + std::min(at + kCopyFloats, slot_floats()), to + at);
    };
    c.pool.run({phase((slot_floats() + kCopyFloats - 1) / kCopyFloats, part)});
}

void RecurrentState::read(int64_t layer, int64_t slot, float* conv_rows, float* matrices) const {
    const float* rows = conv(layer, slot);
    std::copy(rows, rows + (net.kernel - 1) * net.conv_features(), conv_rows);
    for (int64_t row = 0; row < net.value_heads * net.key; row++) {
        const float* panels = matrix(layer, row / net.key, slot) + row % net.key * kPanel;
        for (int64_t i = 0; i < net.value; i++) {
            *matrices++ = panels[i / kPanel * net.key * kPanel + i % kPanel];
        }
    }
}

}  // namespace ktchat
