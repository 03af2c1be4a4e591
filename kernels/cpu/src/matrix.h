// Weights and KV caches as the kernels see them, and the formats that activations are converted to.
#pragma once

#include "kernels.h"
#include "tile16.h"

namespace ktchat {

// How the activations of a product are stored.
enum Format : int { kFloat, kTile16, kFormats };

// (count, rows, cols) weights in their GGUF type, borrowed from the caller or repacked into tiles
// of our own. `kernel` is the only way in which their bytes are read in products.
struct Matrix {
    Matrix() = default;
    Matrix(const Matrix&) = delete;
    Matrix& operator=(const Matrix&) = delete;
    ~Matrix();

    int type;
    Format format;
    int64_t count;
    int64_t rows;
    int64_t cols;
    const uint8_t* data;
    size_t row_prefix = 0;  // bytes ahead of a row's blocks
    size_t row_bytes;
    size_t bytes;                        // of one of `count`
    const Tile16Type* tile16 = nullptr;  // null: rows as in the file
    size_t owned = 0;                    // bytes mapped for repacked tiles
    TileKernel kernel;        // null for rows of blocks as in the file, which are not multiplied
    RowToFloat row_to_float;  // null for floats

    // The first byte of a row; in repacked tiles, of a row that begins one.
    const uint8_t* row(int64_t index, int64_t r) const {
        return data + static_cast<size_t>(index) * bytes + static_cast<size_t>(r) * row_bytes;
    }
};

// A paged KV cache of float16: keys (layers, pages, heads, page_size, key), values alike. With a
// ring, positions go round in the first `ring` pages, whatever pages a sequence has.
struct Cache {
    uint16_t* keys;
    uint16_t* values;  // null when `value` is 0
    int64_t layers;
    int64_t pages;
    int64_t page_size;
    int64_t heads;
    int64_t key;
    int64_t value;
    int64_t ring;  // 0: none

    size_t key_page() const { return static_cast<size_t>(heads * page_size * key); }
    size_t value_page() const { return static_cast<size_t>(heads * page_size * value); }
    size_t key_head(int64_t layer, int64_t head) const {
        return static_cast<size_t>(layer * pages) * key_page() +
               static_cast<size_t>(head * page_size * key);
    }
    size_t value_head(int64_t layer, int64_t head) const {
        return static_cast<size_t>(layer * pages) * value_page() +
               static_cast<size_t>(head * page_size * value);
    }
};

}  // namespace ktchat
