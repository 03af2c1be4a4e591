#include "context.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace ktchat {

// ---- scratch memory -----------------------------------------------------------------------------

Arena::~Arena() {
    for (auto& block : blocks_) std::free(block.data);
}

// Several blocks become one that would have held them all, so a steady state allocates nothing.
void Arena::reset() {
    used_ = 0;
    if (blocks_.size() <= 1) return;
    size_t total = 0;
    for (auto& block : blocks_) {
        total += block.size;
        std::free(block.data);
    }
    blocks_.clear();
    take_bytes(total);
    used_ = 0;
}

void* Arena::take_bytes(size_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (blocks_.empty() || blocks_.back().size - used_ < bytes) {
        const size_t size = bytes > (1u << 20) ? bytes : (1u << 20);
        blocks_.reserve(blocks_.size() + 1);
        auto* data = static_cast<uint8_t*>(std::aligned_alloc(64, size));
        if (!data) throw std::bad_alloc();
        blocks_.push_back({data, size});
        used_ = 0;
    }
    void* result = blocks_.back().data + used_;
    used_ += bytes;
    return result;
}

// ---- rotary embedding ---------------------------------------------------------------------------

void RopeTable::prepare(const std::vector<double>& new_frequencies, float new_magnitude,
                        int64_t new_start, int64_t n) {
    const size_t size = new_frequencies.size(), rows = static_cast<size_t>(n);
    if (new_frequencies == frequencies && magnitude == new_magnitude && start == new_start &&
        cos.size() == rows * size) {
        return;
    }
    start = -1;  // not valid until filled
    cos.resize(rows * size);
    sin.resize(rows * size);
    for (size_t t = 0; t < rows; t++) {
        for (size_t i = 0; i < size; i++) {
            const double position = static_cast<double>(new_start + static_cast<int64_t>(t));
            const double angle = position * new_frequencies[i];
            const size_t at = t * size + i;
            cos[at] = static_cast<float>(std::cos(angle) * static_cast<double>(new_magnitude));
            sin[at] = static_cast<float>(std::sin(angle) * static_cast<double>(new_magnitude));
        }
    }
    frequencies = new_frequencies;
    magnitude = new_magnitude;
    start = new_start;
}

const RopeTable& RopeTables::prepare(const double* frequencies, int64_t pairs, float magnitude,
                                     int64_t start, int64_t n) {
    const std::vector<double> wanted(frequencies, frequencies + pairs);
    if (tables_[last_].frequencies != wanted) last_ = 1 - last_;
    tables_[last_].prepare(wanted, magnitude, start, n);
    return tables_[last_];
}

// ---- who has which rows -------------------------------------------------------------------------

void RowOwners::keep(bool on) {
    on_ = on;
    entries_.clear();
}

void RowOwners::add(const Entry& entry) {
    std::lock_guard<std::mutex> lock(mutex_);
    entries_.push_back(entry);
}

// ---- weights ------------------------------------------------------------------------------------

Context::Context(const Kernels* table, int threads, const std::vector<int>& cpus)
    : pool(threads, cpus), kernels(table) {
    formats[kTile16] = {kActivationGroup, kActivationGroupBytes, kernels->quantise_tile16_row};
}

std::unique_ptr<Matrix> Context::make_matrix(int type, int64_t block, size_t bytes) const {
    auto m = std::make_unique<Matrix>();
    m->type = type;
    m->format = kFloat;
    m->kernel = nullptr;
    m->row_to_float = nullptr;
    if (const Tile16Type* tiles = kernels->tile16_type(type)) {
        if (tiles->cols != block || tiles->row_block != bytes) return nullptr;
        m->row_prefix = tiles->row_prefix;
        m->row_to_float = tiles->row_to_float;
        return m;
    }
    if (block != 1) return nullptr;
    if (type == kF32 && bytes == 4) m->kernel = kernels->tile_f32;
    if (type == kF16 && bytes == 2) m->kernel = kernels->tile_f16;
    if (type == kBF16 && bytes == 2) m->kernel = kernels->tile_bf16;
    return m->kernel ? std::move(m) : nullptr;
}

uint8_t* map_memory(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    constexpr size_t kHugePage = 2 << 20;
    if (bytes >= kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
    return static_cast<uint8_t*>(memory);
}

Matrix::~Matrix() {
    if (owned) munmap(const_cast<uint8_t*>(data), owned);
}

void Context::repack(Matrix& m) {
    const Tile16Type* type = kernels->tile16_type(m.type);
    if (!type) return;
    const int64_t blocks = m.cols / type->cols, tiles = (m.rows + kTile16Rows - 1) / kTile16Rows;
    const size_t prefix = type->row_prefix;
    const size_t tile_bytes =
        kTile16Rows * prefix + static_cast<size_t>(blocks) * type->block_bytes();
    const size_t total = static_cast<size_t>(m.count * tiles) * tile_bytes;
    uint8_t* packed = map_memory(total);
    // Tile by tile of all matrices, so that a worker packs the rows of each that it will read.
    const auto pack_tile = [&](int64_t chunk, int) {
        const int64_t index = chunk % m.count, tile = chunk / m.count;
        const int64_t first = tile * kTile16Rows;
        const int rows = static_cast<int>(std::min<int64_t>(kTile16Rows, m.rows - first));
        const uint8_t* source = m.row(index, first);
        uint8_t* target = packed + static_cast<size_t>(index * tiles + tile) * tile_bytes;
        owners.note(m, index, first, first + rows, pool.owner(chunk, m.count * tiles), false);
        for (size_t r = 0; r < static_cast<size_t>(rows); r++) {
            std::memcpy(target + r * prefix, source + r * m.row_bytes, prefix);
        }
        source += prefix;
        target += kTile16Rows * prefix;
        for (int64_t i = 0; i < blocks; i++) {
            type->pack(source, m.row_bytes, rows, target);
            source += type->row_block;
            target += type->block_bytes();
        }
    };
    pool.run({phase(m.count * tiles, pack_tile)});
    m.data = packed;
    m.owned = total;
    m.tile16 = type;
    m.format = kTile16;
    m.kernel = type->kernel;
    m.row_bytes = tile_bytes / kTile16Rows;
    m.bytes = static_cast<size_t>(tiles) * tile_bytes;
}

// ---- activations --------------------------------------------------------------------------------

Inputs::Inputs(Context& context, const float* x, int64_t n, int64_t cols, unsigned formats)
    : context_(context), x_(x), cols_(cols) {
    for (int f = 0; f < kFormats; f++) {
        if (!(formats & 1u << f)) continue;
        const uint8_t* base = reinterpret_cast<const uint8_t*>(x);
        const size_t stride = context.formats[f].row_bytes(cols);
        if (f != kFloat) {
            packing_ = true;
            base = context.arena.take<uint8_t>(n * static_cast<int64_t>(stride));
        }
        rows_[f] = context.arena.take<const void*>(n);
        for (int64_t t = 0; t < n; t++) rows_[f][t] = base + static_cast<size_t>(t) * stride;
    }
}

void Inputs::pack(int64_t t) const {
    for (int f = kFloat + 1; f < kFormats; f++) {
        if (!rows_[f]) continue;
        context_.formats[f].from_float(x_ + t * cols_, const_cast<void*>(rows_[f][t]), cols_);
    }
}

}  // namespace ktchat
