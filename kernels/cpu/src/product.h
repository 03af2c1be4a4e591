// A matrix product: rows are cut into chunks of work for the threads, and chunks into tiles.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "context.h"

namespace ktchat {

constexpr int kTokenTile = 64;

// Rows of a tile. With few tokens memory is the limit and longer runs stream better; with many, a
// block of rows should stay in the first-level cache while the tokens pass by. Two repacked
// tiles share the tokens' broadcasts.
inline int64_t tile_rows(const Matrix& m, int64_t tokens) {
    return m.tile16 || tokens <= 8 ? 2 * kTile16Rows : kTile16Rows;
}
constexpr int kTileFloats = kTokenTile * 2 * kTile16Rows;

// How the rows of one of `copies` matrices are cut: whole tiles, in stretches long enough to stream
// well, yet enough of them that all threads end together. The cut is a matter of balance only:
// results are the same for any.
class RowChunks {
public:
    RowChunks(const Context& c, const Matrix& m, int64_t tokens, int weights_a_row = 1,
              int64_t copies = 1)
        : rows_(m.rows), tile_(tile_rows(m, tokens)), tiles_((m.rows + tile_ - 1) / tile_) {
        constexpr int64_t kShortest = 64 << 10, kLongest = 512 << 10;
        const int64_t passes = (tokens + 3) / 4 * weights_a_row;
        const int64_t row = static_cast<int64_t>(m.row_bytes) * passes;
        const int64_t fair = row * m.rows * copies / (8 * c.pool.threads());
        const int64_t wanted = std::max(kShortest, std::min(kLongest, fair));
        const int64_t together = std::max<int64_t>(1, wanted / std::max<int64_t>(1, tile_ * row));
        count_ = (tiles_ + together - 1) / together;
        // As many for each worker, so that its share begins where its stretch does.
        const int64_t threads = c.pool.threads(), each = (count_ + threads / 2) / threads;
        if (each > 0 && each * threads <= tiles_) count_ = each * threads;
    }
    int64_t count() const { return count_; }
    int64_t begin(int64_t chunk) const { return tiles_ * chunk / count_ * tile_; }
    int64_t end(int64_t chunk) const { return std::min(rows_, begin(chunk + 1)); }

private:
    const int64_t rows_;
    const int64_t tile_;
    const int64_t tiles_;
    int64_t count_;
};

// The chunks of several products that run in one phase, or of `copies` of one, share by share: the
// stretch of worker w has the same part of each one's rows as when they were packed, so that every
// worker reads what it wrote first, which is what its memory node has.
class Shares {
public:
    struct Chunk {
        int64_t product;  // or copy
        int64_t part;
    };

    Shares(int threads, std::initializer_list<int64_t> parts, int64_t copies)
        : threads_(threads), copies_(copies) {
        for (int64_t count : parts) add(count);
    }
    void add(int64_t parts) { parts_[products_++] = parts; }
    int64_t count() const { return before(threads_); }

    Chunk at(int64_t chunk) const {
        int64_t share = chunk * threads_ / count();
        while (before(share) > chunk) share--;
        while (before(share + 1) <= chunk) share++;
        chunk -= before(share);
        int64_t product = 0;
        for (int64_t size; chunk >= (size = copies_ * of_share(product, share)); product++) {
            chunk -= size;
        }
        const int64_t size = of_share(product, share), first = parts_[product] * share / threads_;
        return {copies_ > 1 ? chunk / size : product, first + chunk % size};
    }

private:
    int64_t of_share(int64_t product, int64_t share) const {
        return parts_[product] * (share + 1) / threads_ - parts_[product] * share / threads_;
    }
    int64_t before(int64_t share) const {
        int64_t all = 0;
        for (int p = 0; p < products_; p++) all += parts_[p] * share / threads_;
        return copies_ * all;
    }

    const int64_t threads_;
    const int64_t copies_;
    int64_t parts_[4];
    int products_ = 0;
};

// Rows [begin, end) of matrix `index` times `tokens` rows of x, tile by tile:
// done(r, rows, t, count, y) has y[i * rows + j] = product of row r + j with x[t + i].
// `last_next` is what the thread reads after these rows, or null.
template <class Done>
void product(const Matrix& m, int64_t index, int64_t begin, int64_t end, const void* const* x,
             int64_t tokens, const Done& done, const uint8_t* last_next = nullptr) {
    alignas(64) float y[kTileFloats];
    const int64_t tile = tile_rows(m, tokens);
    for (int64_t r = begin; r < end; r += tile) {
        const int rows = static_cast<int>(std::min(tile, end - r));
        const uint8_t* w = m.row(index, r);
        for (int64_t t = 0; t < tokens; t += kTokenTile) {
            const int count = static_cast<int>(std::min<int64_t>(kTokenTile, tokens - t));
            const uint8_t* next = t + count < tokens ? w
                                  : r + rows < end   ? m.row(index, r + rows)
                                                     : last_next;
            m.kernel(m, w, rows, next, x + t, count, y);
            done(r, rows, t, count, y);
        }
    }
}

}  // namespace ktchat
