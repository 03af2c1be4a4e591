// Products of panels (panel.h, panel_types.inc.h) with int8 activations.
//
// With up to 4 tokens a block of 32 columns is multiplied as it is unpacked: each byte of weights is
// read once and memory is the limit. With more, 256 columns of two panels are unpacked into the
// first-level cache and all tokens pass by (a tile of a GEMM, whose code is the same for every type).

#include <algorithm>

#include "matrix.h"

namespace ktchat::KTCHAT_ISA {
namespace {

// ---- few tokens: unpack and multiply ------------------------------------------------------------

constexpr size_t kAhead = 8 << 10;  // bytes between the arithmetic and what is fetched for it

// T tokens times 16 rows: sums[t][row].
template <class Type, int T>
inline void stream_panel(const uint8_t* panel, size_t cell_bytes, int64_t cols, const PanelRow* x,
                         float (*sums)[kPanelRows]) {
    constexpr int kBlocks = Type::kCols / 32;
    for (int lane = 0; lane < kPanelRows; lane += W) {
        Vec out[T] = {};
        const uint8_t* cell = panel;
        for (int64_t c = 0; c < cols; c += Type::kCols, cell += cell_bytes) {
            const typename Type::Header h = Type::header(cell, lane);
            size_t fetched = 0;
            for (int b = 0; b < kBlocks; b++) {
                // A few lines between the arithmetic: a core has few outstanding misses.
                if (lane == 0) {
                    const size_t end = cell_bytes * static_cast<size_t>(b + 1) / kBlocks;
                    for (; fetched < end; fetched += 64) __builtin_prefetch(cell + kAhead + fetched);
                }
                const int64_t block = c / 32 + b;
                Bytes w[8];
                Type::unpack(cell, b, lane, w);
                if constexpr (Type::kGroup == 32) {
                    Vec scale, min;
                    Type::scales(h, cell, b, lane, scale, min);
                    for (int t = 0; t < T; t++) {
                        const int8_t* q = x[t].q + 32 * block;
                        IntVec even = {}, odd = {};
                        for (int k = 0; k < 8; k += 2) {
                            even = dot4<Type::kWide>(even, w[k], q + 4 * k);
                            odd = dot4<Type::kWide>(odd, w[k + 1], q + 4 * k + 4);
                        }
                        out[t] += to_floats(even + odd) * (scale * x[t].scale[block]);
                        out[t] -= min * x[t].sum32[block];
                    }
                } else {
                    Vec scale[2], min[2];
                    Type::scales(h, cell, 2 * b, lane, scale[0], min[0]);
                    Type::scales(h, cell, 2 * b + 1, lane, scale[1], min[1]);
                    for (int t = 0; t < T; t++) {
                        const int8_t* q = x[t].q + 32 * block;
                        IntVec low = {}, high = {};
                        for (int k = 0; k < 4; k++) {
                            low = dot4<Type::kWide>(low, w[k], q + 4 * k);
                            high = dot4<Type::kWide>(high, w[k + 4], q + 16 + 4 * k);
                        }
                        const Vec sum = to_floats(low) * scale[0] + to_floats(high) * scale[1];
                        out[t] += sum * x[t].scale[block];
                        out[t] -= min[0] * x[t].sum16[2 * block];
                        out[t] -= min[1] * x[t].sum16[2 * block + 1];
                    }
                }
            }
        }
        for (int t = 0; t < T; t++) store(sums[t] + lane, out[t]);
    }
}

// ---- many tokens: unpack 256 columns, then let the tokens pass ----------------------------------

constexpr int kDepth = 256;  // columns unpacked at once
constexpr int kPair = 2;     // panels unpacked at once
constexpr int kManyTokens = 64;

struct Unpacked {
    alignas(64) uint8_t w[kPair][kDepth / 4][64];
    alignas(64) float scale[kPair][kDepth / 16][kPanelRows];
    alignas(64) float min[kPair][kDepth / 16][kPanelRows];
};

template <class Type>
inline void unpack_depth(const uint8_t* cell, size_t cell_bytes, int blocks, int pair,
                         Unpacked& u) {
    constexpr int kGroups = 32 / Type::kGroup;
    constexpr int kBlocks = Type::kCols / 32;
    for (int b = 0; b < blocks; b++) {
        const uint8_t* at = cell + static_cast<size_t>(b / kBlocks) * cell_bytes;
        for (int lane = 0; lane < kPanelRows; lane += W) {
            Bytes w[8];
            Type::unpack(at, b % kBlocks, lane, w);
            for (int k = 0; k < 8; k++) {
                std::memcpy(u.w[pair][8 * b + k] + 4 * lane, &w[k], sizeof w[k]);
            }
            const typename Type::Header h = Type::header(at, lane);
            for (int g = 0; g < kGroups; g++) {
                Vec scale, min;
                Type::scales(h, at, kGroups * (b % kBlocks) + g, lane, scale, min);
                store(u.scale[pair][kGroups * b + g] + lane, scale);
                store(u.min[pair][kGroups * b + g] + lane, min);
            }
        }
    }
}

// P panels times T tokens over `blocks` unpacked blocks from column 32 * `first` on; adds to
// sums[t][16 * p + row].
template <int P, int T, int Group, bool Wide>
inline void multiply_depth(const Unpacked& u, int blocks, int64_t first, const PanelRow* x,
                           float (*sums)[kPair * kPanelRows]) {
    constexpr int kGroups = 32 / Group, kSteps = Group / 4;
    for (int lane = 0; lane < kPanelRows; lane += W) {
        Vec out[P][T];
        for (int p = 0; p < P; p++) {
            for (int t = 0; t < T; t++) out[p][t] = load(sums[t] + kPanelRows * p + lane);
        }
        for (int b = 0; b < blocks; b++) {
            const int64_t block = first + b;
            for (int g = 0; g < kGroups; g++) {
                IntVec acc[P][T] = {};
                for (int k = 0; k < kSteps; k++) {
                    Bytes w[P];
                    const int step = g * kSteps + k;
                    for (int p = 0; p < P; p++) w[p] = load_bytes(u.w[p][8 * b + step] + 4 * lane);
                    for (int t = 0; t < T; t++) {
                        const int8_t* q = x[t].q + 32 * block + 4 * step;
                        for (int p = 0; p < P; p++) acc[p][t] = dot4<Wide>(acc[p][t], w[p], q);
                    }
                }
                for (int p = 0; p < P; p++) {
                    const Vec scale = load(u.scale[p][kGroups * b + g] + lane);
                    const Vec min = load(u.min[p][kGroups * b + g] + lane);
                    for (int t = 0; t < T; t++) {
                        const float sum =
                            Group == 32 ? x[t].sum32[block] : x[t].sum16[2 * block + g];
                        out[p][t] += to_floats(acc[p][t]) * (scale * x[t].scale[block]);
                        out[p][t] -= min * sum;
                    }
                }
            }
        }
        for (int p = 0; p < P; p++) {
            for (int t = 0; t < T; t++) store(sums[t] + kPanelRows * p + lane, out[p][t]);
        }
    }
}

template <int P, int Group, bool Wide>
void multiply_tokens(const Unpacked& u, int blocks, int64_t first, const PanelRow* x, int tokens,
                     float (*sums)[kPair * kPanelRows]) {
    constexpr int T = W == 16 ? 6 : 2;  // what 32 registers hold, or 16
    int t = 0;
    for (; t + T <= tokens; t += T) {
        multiply_depth<P, T, Group, Wide>(u, blocks, first, x + t, sums + t);
    }
    if constexpr (T == 6) {
        if (tokens - t >= 4) {
            multiply_depth<P, 4, Group, Wide>(u, blocks, first, x + t, sums + t);
            t += 4;
        }
        if (tokens - t >= 2) {
            multiply_depth<P, 2, Group, Wide>(u, blocks, first, x + t, sums + t);
            t += 2;
        }
    }
    if (tokens > t) multiply_depth<P, 1, Group, Wide>(u, blocks, first, x + t, sums + t);
}

inline void fetch(const uint8_t* p, size_t bytes) {
    for (size_t b = 0; b < bytes; b += 64) __builtin_prefetch(p + b);
}

// `next`: the panels that will be read after these, or null.
template <class Type>
void many_tokens(const uint8_t* w, size_t panel_bytes, size_t cell_bytes, int panels, int64_t cols,
                 const uint8_t* next, const PanelRow* x, int tokens,
                 float (*sums)[kPair * kPanelRows]) {
    Unpacked u;
    for (int t = 0; t < tokens; t++) std::memset(sums[t], 0, sizeof sums[t]);
    const size_t depth_bytes = static_cast<size_t>(kDepth / Type::kCols) * cell_bytes;
    for (int64_t c = 0; c < cols; c += kDepth, w += depth_bytes) {
        const int blocks = static_cast<int>(std::min<int64_t>(kDepth, cols - c) / 32);
        for (int p = 0; p < panels; p++) {
            unpack_depth<Type>(w + static_cast<size_t>(p) * panel_bytes, cell_bytes, blocks, p, u);
        }
        const uint8_t* ahead = c + kDepth < cols ? w + depth_bytes : next;
        for (int p = 0; ahead && p < panels; p++) {
            fetch(ahead + static_cast<size_t>(p) * panel_bytes, depth_bytes);
        }
        if (panels == 2) {
            multiply_tokens<2, Type::kGroup, Type::kWide>(u, blocks, c / 32, x, tokens, sums);
        } else {
            multiply_tokens<1, Type::kGroup, Type::kWide>(u, blocks, c / 32, x, tokens, sums);
        }
    }
}

// ---- the tile -----------------------------------------------------------------------------------

// TileKernel of a panel type; `w` is the first row of a panel.
template <class Type>
void panel_tile(const Matrix& m, const uint8_t* w, int rows, const uint8_t* next,
                const void* const* x, int tokens, float* y) {
    const size_t panel_bytes = m.row_bytes * kPanelRows;
    const size_t cell_bytes = panel_bytes / static_cast<size_t>(m.cols / Type::kCols);
    PanelRow inputs[kManyTokens];
    for (int t = 0; t < tokens; t++) inputs[t] = PanelRow(x[t], m.cols);
    for (int r = 0; r < rows; r += kPair * kPanelRows) {
        const int here = std::min(kPair * kPanelRows, rows - r);
        const int panels = (here + kPanelRows - 1) / kPanelRows;
        const uint8_t* first = w + static_cast<size_t>(r / kPanelRows) * panel_bytes;
        alignas(64) float sums[kManyTokens][kPair * kPanelRows];
        if (tokens <= 4) {
            alignas(64) float part[4][kPanelRows];
            for (int p = 0; p < panels; p++) {
                const uint8_t* panel = first + static_cast<size_t>(p) * panel_bytes;
                switch (tokens) {
                    case 1:
                        stream_panel<Type, 1>(panel, cell_bytes, m.cols, inputs, part);
                        break;
                    case 2:
                        stream_panel<Type, 2>(panel, cell_bytes, m.cols, inputs, part);
                        break;
                    case 3:
                        stream_panel<Type, 3>(panel, cell_bytes, m.cols, inputs, part);
                        break;
                    default:
                        stream_panel<Type, 4>(panel, cell_bytes, m.cols, inputs, part);
                }
                for (int t = 0; t < tokens; t++) {
                    std::memcpy(sums[t] + kPanelRows * p, part[t], sizeof part[t]);
                }
            }
        } else {
            const uint8_t* after =
                r + here < rows ? first + kPair * panel_bytes : next;
            many_tokens<Type>(first, panel_bytes, cell_bytes, panels, m.cols, after, inputs, tokens,
                              sums);
        }
        for (int t = 0; t < tokens; t++) {
            std::memcpy(y + t * rows + r, sums[t], static_cast<size_t>(here) * sizeof(float));
        }
    }
}

TileKernel find_panel_tile(int type) {
    switch (type) {
        case 2:
            return panel_tile<TypeQ4_0>;
        case 6:
            return panel_tile<TypeQ5_0>;
        case 8:
            return panel_tile<TypeQ8_0>;
        case 10:
            return panel_tile<TypeQ2_K>;
        case 11:
            return panel_tile<TypeQ3_K>;
        case 12:
            return panel_tile<TypeQ4_K>;
        case 13:
            return panel_tile<TypeQ5_K>;
        case 14:
            return panel_tile<TypeQ6_K>;
        case 20:
            return panel_tile<TypeIQ4_NL>;
        case 23:
            return panel_tile<TypeIQ4_XS>;
        case 39:
            return panel_tile<TypeMXFP4>;
        default:
            return nullptr;
    }
}

// ---- activations --------------------------------------------------------------------------------

// Columns [first, first + count) of a row in the panel format: int8 with a scale for every 32 columns,
// rounded to nearest.
void quantise_panel_part(const float* x, void* y, int64_t cols, int64_t first, int64_t count) {
    auto* q = static_cast<int8_t*>(y);
    auto* scales = reinterpret_cast<float*>(q + cols);
    float* sum32 = scales + cols / 32;
    float* sum16 = sum32 + cols / 32;
    q += first;
    for (int64_t b = first / 32; b < (first + count) / 32; b++, x += 32, q += 32) {
        Vec largest = {};
        for (int i = 0; i < 32; i += W) {
            const Vec v = load(x + i);
            largest = max(largest, max(v, -v));
        }
        const float scale = maximum(largest) / 127.0f;
        const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
        int sum[2] = {};
        for (int i = 0; i < 32; i += W) {
            constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
            const IntVec n =
                __builtin_convertvector((load(x + i) * inverse + magic) - magic, IntVec);
            typedef int8_t Out __attribute__((vector_size(W), aligned(1), may_alias));
            *reinterpret_cast<Out*>(q + i) = __builtin_convertvector(n, Out);
            for (int r = 0; r < W; r++) sum[i / 16] += n[r];
        }
        scales[b] = scale;
        sum16[2 * b] = scale * static_cast<float>(sum[0]);
        sum16[2 * b + 1] = scale * static_cast<float>(sum[1]);
        sum32[b] = sum16[2 * b] + sum16[2 * b + 1];
    }
}

void quantise_panel_row(const float* x, void* y, int64_t cols) {
    quantise_panel_part(x, y, cols, 0, cols);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
