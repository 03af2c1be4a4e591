// What one CpuOps owns: threads, the chosen kernels and scratch memory.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "matrix.h"
#include "pool.h"

namespace ktchat {

// Result of an op; kernels/cpu/native.py raises an exception for all but kOk.
enum Status : int { kOk = 0, kBadArgument = 1, kNoMemory = 2, kBadIndex = 3, kLate = 4 };

// Scratch memory that lives until the next op. Pointers are aligned to 64 bytes.
class Arena {
public:
    ~Arena();
    void reset();

    template <class T>
    T* take(int64_t count) {
        return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
    }
    void* take_bytes(size_t bytes);

private:
    struct Block {
        uint8_t* data;
        size_t size;
    };
    std::vector<Block> blocks_;
    size_t used_ = 0;  // of the last block
};

// Memory of zeros from the system, in huge pages if it has them, to be given back by munmap. Throws
// std::bad_alloc. Kernels prefetch past its end, which is no access and needs no room there.
uint8_t* map_memory(size_t bytes);

// cos and sin of one op's positions.
struct RopeTable {
    std::vector<double> frequencies;
    float magnitude = 0;
    int64_t start = -1;
    std::vector<float> cos;  // (n, pairs)
    std::vector<float> sin;

    void prepare(const std::vector<double>& new_frequencies, float new_magnitude, int64_t new_start,
                 int64_t n);
};

// Tables are kept because every layer asks for the same, or for one of two.
class RopeTables {
public:
    const RopeTable& prepare(const double* frequencies, int64_t pairs, float magnitude,
                             int64_t start, int64_t n);

private:
    RopeTable tables_[2];
    int last_ = 0;
};

// Whose stretch of a phase had which rows, as they were packed and as they were read, while it is
// switched on: for the tests of placement.
class RowOwners {
public:
    struct Entry {
        int64_t matrix;
        int64_t index;
        int64_t begin;
        int64_t end;
        int64_t owner;
        int64_t read;  // 1; 0: packed
    };

    void keep(bool on);
    void note(const Matrix& m, int64_t index, int64_t begin, int64_t end, int owner, bool read) {
        if (on_) add({reinterpret_cast<int64_t>(&m), index, begin, end, owner, read});
    }
    const std::vector<Entry>& entries() const { return entries_; }

private:
    void add(const Entry& entry);

    bool on_ = false;
    std::mutex mutex_;
    std::vector<Entry> entries_;
};

struct FormatTraits {
    int64_t block = 1;
    size_t bytes = 4;
    void (*from_float)(const float* x, void* y, int64_t cols) = nullptr;

    size_t row_bytes(int64_t cols) const { return static_cast<size_t>(cols / block) * bytes; }
};

class Context {
public:
    Context(const Kernels* kernels, int threads, const std::vector<int>& cpus);

    // Null when there are no kernels for `type` with this block.
    std::unique_ptr<Matrix> make_matrix(int type, int64_t block, size_t bytes) const;

    // Repacks the weights of `m` into tiles of its own, on all threads; nothing happens to a type
    // that has none.
    void repack(Matrix& m);

    Pool pool;
    const Kernels* const kernels;
    Arena arena;
    RopeTables ropes;
    mutable RowOwners owners;
    FormatTraits formats[kFormats];
};

// n rows of activations, converted to the formats that some weights want.
class Inputs {
public:
    // Takes memory from the arena; nothing is converted yet.
    Inputs(Context& context, const float* x, int64_t n, int64_t cols, unsigned formats);

    bool needs_packing() const { return packing_; }
    // Converts row `t` into every wanted format.
    void pack(int64_t t) const;
    // Row pointers in a format.
    const void* const* rows(Format format) const { return rows_[format]; }

private:
    const Context& context_;
    const float* x_;
    int64_t cols_;
    bool packing_ = false;
    const void** rows_[kFormats] = {};
};

inline unsigned format_bit(const Matrix& m) { return 1u << m.format; }

}  // namespace ktchat
