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

// A paged KV cache (attention_cache.inc.h): a layer's pages one after another, in each the heads'
// keys, or values. With a ring, positions go round in the first `ring` pages, whatever pages a
// sequence has.
struct Cache {
    Cache() = default;
    Cache(const Cache&) = delete;
    Cache& operator=(const Cache&) = delete;
    ~Cache();

    const KvFormat* format;
    int64_t layers;
    int64_t pages;
    int64_t page_size;
    int64_t heads;
    int64_t key;
    int64_t value;
    int64_t ring;               // 0: none
    uint8_t* keys = nullptr;    // memory of its own, zeros at first
    uint8_t* values = nullptr;  // null when `value` is 0

    // Bytes of one head's rows of so many features in one page.
    size_t head_bytes(int64_t features) const {
        const int64_t blocks = (features + format->block - 1) / format->block;
        const int64_t row = (features + 15) / 16 * 16 * format->bytes + 2 * blocks;
        return static_cast<size_t>((page_size * row + 63) / 64 * 64);
    }
    size_t page_bytes(int64_t features) const {
        return static_cast<size_t>(heads) * head_bytes(features);
    }
    size_t bytes(int64_t features) const {
        return static_cast<size_t>(layers * pages) * page_bytes(features);
    }
    // One head's keys of a layer's first page, or its values.
    uint8_t* key_head(int64_t layer, int64_t head) const {
        return keys + at(layer, head, key);
    }
    uint8_t* value_head(int64_t layer, int64_t head) const {
        return values + at(layer, head, value);
    }

private:
    size_t at(int64_t layer, int64_t head, int64_t features) const {
        return static_cast<size_t>(layer * pages) * page_bytes(features) +
               static_cast<size_t>(head) * head_bytes(features);
    }
};

}  // namespace ktchat
