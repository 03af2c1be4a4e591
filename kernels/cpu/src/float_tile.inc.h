// Products with F32, F16 and BF16 weights. Activations stay in float32 (ggml rounds them to the
// weights' type). Every (row, token) sum has the same order of additions whatever the block it is
// computed in, so results do not depend on how rows were split over threads.

#include "matrix.h"

namespace ktchat::KTCHAT_ISA {
namespace {

// R rows times T tokens. Lanes accumulate columns W apart, in two chains.
template <class Format, int R, int T>
inline void block(const uint8_t* w, size_t row_bytes, int64_t cols, const void* const* x, float* y,
                  int ld) {
    using Element = typename Format::Element;
    Vec acc[2][R][T] = {};
    int64_t c = 0;
    for (; c + 2 * W <= cols; c += 2 * W) {
        for (int u = 0; u < 2; u++) {
            Vec rows[R];
            for (int r = 0; r < R; r++) {
                rows[r] = Format::at(w + r * row_bytes +
                                     static_cast<size_t>(c + u * W) * sizeof(Element));
            }
            for (int t = 0; t < T; t++) {
                const Vec token = load(static_cast<const float*>(x[t]) + c + u * W);
                for (int r = 0; r < R; r++) acc[u][r][t] += rows[r] * token;
            }
        }
    }
    for (; c < cols; c += W) {
        const int64_t n = cols - c < W ? cols - c : W;
        for (int r = 0; r < R; r++) {
            const Vec row =
                Format::part(w + r * row_bytes + static_cast<size_t>(c) * sizeof(Element), n);
            for (int t = 0; t < T; t++) {
                acc[0][r][t] += row * load_part(static_cast<const float*>(x[t]) + c, n);
            }
        }
    }
    for (int t = 0; t < T; t++) {
        for (int r = 0; r < R; r++) y[t * ld + r] = sum(acc[0][r][t] + acc[1][r][t]);
    }
}

template <class Format, int R>
inline void rows_block(const uint8_t* w, size_t row_bytes, int64_t cols, const void* const* x,
                       int tokens, float* y, int ld) {
    constexpr int T = W == 16 ? 3 : 1;  // what the registers hold beside 4 rows and 2 chains
    int t = 0;
    for (; t + T <= tokens; t += T) {
        block<Format, R, T>(w, row_bytes, cols, x + t, y + t * ld, ld);
    }
    for (; t < tokens; t++) block<Format, R, 1>(w, row_bytes, cols, x + t, y + t * ld, ld);
}

template <class Format>
void float_tile(const Matrix& m, const uint8_t* w, int rows, const uint8_t*, const void* const* x,
                int tokens, float* y) {
    const int ld = rows;
    int r = 0;
    for (; r + 4 <= rows; r += 4) {
        rows_block<Format, 4>(w + r * m.row_bytes, m.row_bytes, m.cols, x, tokens, y + r, ld);
    }
    for (; r < rows; r++) {
        rows_block<Format, 1>(w + r * m.row_bytes, m.row_bytes, m.cols, x, tokens, y + r, ld);
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
