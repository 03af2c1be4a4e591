// The table of kernels that exist once for each instruction set. Everything that loops over
// features is here; everything that plans, splits or counts is compiled once, for the baseline.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ktchat {

struct Matrix;
struct Tile16Type;

// One tile of a product: y[t * rows + r] = dot(row r of `w`, x[t]) for r < rows, t < tokens. `w`
// points at the first row; the activations are in the matrix's format. `next`, if not null, is what
// this thread will read after these rows: a hint to fetch it ahead.
using TileKernel = void (*)(const Matrix& m, const uint8_t* w, int rows, const uint8_t* next,
                            const void* const* x, int tokens, float* y);

// `cols` elements of a row in the file as float32.
using RowToFloat = void (*)(const void* row, float* y, int64_t cols);

// The types whose elements are floats, by their numbers in enum ggml_type.
enum FloatType : int { kF32 = 0, kF16 = 1, kBF16 = 30 };

// How a cache keeps numbers: whole ones of `bytes` bytes and at most `largest`, with a scale for
// every `block` features of a position. What up to 128 of them are multiplied with adds up to
// `most` at most, before it is rounded, so that the sum of the products fits into 32 bits.
struct KvFormat {
    int bytes;
    int block;
    int largest;
    int most;
};

// Softmax attention of a few query rows over one range of one KV head's positions, from a page's
// edge on. Strides count bytes. Without `values` a position's value is the first features of its
// key (MLA).
struct AttentionTile {
    const float* const* queries;  // row pointers, `key` features each
    const int* firsts;            // positions a row may see: first .. limit - 1
    const int* limits;
    const float* sinks;  // a score a row that has no value, or null
    int rows;
    float scale;
    const KvFormat* format;
    const uint8_t* keys;
    const uint8_t* values;
    size_t key_page_stride;
    size_t value_page_stride;
    const int32_t* pages;
    int page_size;
    int64_t ring;  // pages that positions go round in, or 0: those of `pages`
    int key;       // features
    int value;
    int64_t begin;
    int64_t end;
    float* scratch;  // attention_scratch floats, aligned to 64 bytes
    // Results, not yet divided by the sum: `outputs` rows of padded(value) floats. Maxima are in
    // units of ln 2.
    float* outputs;
    float* maxima;
    float* sums;
};

// Values of a delta net's state that are kept together for all keys: whole vectors of every
// instruction set.
constexpr int kPanel = 32;
constexpr int kChunk = 32;     // tokens that a delta net takes at once
constexpr int kChunkRows = 8;  // a chunk has a multiple of these
constexpr int kMostTaps = 4;

constexpr int kActivations = 3;

// A factor keep + change: 1 and what is missing when that is little, so that it has more digits
// than one float32; a state is multiplied by it thousands of times.
struct Decay {
    float keep;
    float change;
};

// A causal convolution over `kernel` tokens and SiLU for a range of features. `state` has the last
// kernel - 1 tokens, which become those of x; its rows and those of x are `stride` apart.
struct ShortConvolution {
    const float* x;
    int64_t stride;
    int64_t n;
    float* state;
    const float* taps;  // (features, kernel)
    int kernel;         // 1 .. kMostTaps
    int64_t features;
    float* y;
    int64_t y_stride;
};

// A few tokens of one value head of a delta net: q and k (n, key), v (n, panels * kPanel), which
// becomes the output, and the state (panels, key, kPanel).
struct DeltaSteps {
    const float* q;
    const float* k;
    float* v;
    const Decay* decays;
    const float* rates;
    float* state;
    int n;
    int key;
    int panels;
};

// The same for a chunk of `rows` tokens, with what delta_products made of q and k.
struct DeltaChunk {
    const float* q;
    const float* k;
    const float* k_columns;
    const float* kk;
    const float* qk;
    float* v;
    const double* logs;  // of the product of all decays up to a token
    Decay decay;         // the product of all
    const float* rates;
    float* state;
    int rows;
    int key;
    int panels;
};

struct Kernels {
    const char* name;

    TileKernel tile_f32;
    TileKernel tile_f16;
    TileKernel tile_bf16;
    const Tile16Type* (*tile16_type)(int type);  // null when the type has no repacked tiles
    // int8 activations for repacked tiles (ActivationRow of tile16.h); cols is a multiple of 32.
    void (*quantise_tile16_row)(const float* x, void* y, int64_t cols);
    // The same for columns [first, first + count) of the row at y; both are multiples of 32.
    void (*quantise_tile16_part)(const float* x, void* y, int64_t cols, int64_t first,
                                int64_t count);

    // y = x / sqrt(mean(x^2) + eps) * weight
    void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* y);
    // y = (y + rms_norm(x)) * factor
    void (*norm_add)(const float* x, const float* weight, float eps, float factor, int64_t n,
                     float* y);
    // x = cap * tanh(x / cap)
    void (*soft_cap)(float* x, float cap, int64_t n);
    // gate = activation of gate and up, by its number in kernels/parameters.py
    void (*activations[kActivations])(float* gate, const float* up, int64_t n);
    // y += a * x
    void (*add_scaled)(float* y, float a, const float* x, int64_t n);
    float (*dot)(const float* a, const float* b, int64_t n);
    void (*softmax)(float* x, int64_t n);
    void (*sigmoid)(float* x, int64_t n);
    // Pairs (2i, 2i + 1) when interleaved, else (i, i + pairs), rotated by angle i.
    void (*rotate)(float* x, const float* cos, const float* sin, int64_t pairs, bool interleaved);
    void (*from_half)(const uint16_t* x, float* y, int64_t n);
    void (*from_bfloat)(const uint16_t* x, float* y, int64_t n);

    // One row of features into its slot of a page of keys, or of values.
    void (*append_row)(const KvFormat& format, const float* x, int features, uint8_t* page,
                       int page_size, int slot, bool values);
    size_t (*attention_scratch)(int rows, int key, int value, const KvFormat& format, bool latent);
    int (*padded)(int features);  // rounded up to whole vectors
    void (*attention_tile)(const AttentionTile& tile);
    // out = merge of `splits` partial results of one query row (Dao et al., flash-decoding).
    // Partial s has its value row at outputs + s * stride, its maximum and sum at [s * sum_stride].
    void (*attention_merge)(const float* outputs, size_t stride, const float* maxima,
                            const float* sums, size_t sum_stride, int splits, int value,
                            float* out);

    void (*short_convolution)(const ShortConvolution& convolution);
    // x *= scale / sqrt(sum(x^2) + eps)
    void (*unit)(float* x, float scale, float eps, int64_t n);
    // Of a chunk's q and k (rows, key): k's columns (key, kChunk), k @ k.T and q @ k.T (rows,
    // kChunk), zeros where there are less than kChunk rows.
    void (*delta_products)(const float* q, const float* k, int rows, int key, float* k_columns,
                           float* kk, float* qk);
    void (*delta_steps)(const DeltaSteps& steps);
    void (*delta_chunk)(const DeltaChunk& chunk);
    // y = rms_norm(x) * silu(gate)
    void (*gated_norm)(const float* x, const float* weight, const float* gate, float eps, int64_t n,
                       float* y);
    // x *= sigmoid(gate)
    void (*sigmoid_gate)(float* x, const float* gate, int64_t n);
};

// Each returns its table; a table that this build does not have is null.
const Kernels* kernels_plain();
const Kernels* kernels_avx2();
const Kernels* kernels_avxvnni();
const Kernels* kernels_avx512();
const Kernels* kernels_avx512vnni();

// The kernels of this name, or null where this build or this processor lacks them.
const Kernels* find_kernels(const char* isa);

}  // namespace ktchat
