// A tile of the KV cache for attention_tile.inc.h: where its rows lie, how they become float32, and
// how those of the next tile are fetched ahead.

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr int kTile = 32;  // positions; a multiple of W

inline int padded(int features) { return (features + W - 1) / W * W; }

struct TileBuffers {
    float* queries;  // (rows, dk), scaled and zero-padded
    float* keys;     // (kTile, dk)
    float* values;   // (kTile, dv), where the keys were: both together fill a first-level cache
    float* scores;   // (rows, kTile)
    int dk;
    int dv;
    int value_stride;
};

size_t attention_scratch(int rows, int key, int value) {
    const size_t dk = static_cast<size_t>(padded(key)), dv = static_cast<size_t>(padded(value));
    return static_cast<size_t>(rows) * (dk + kTile) + kTile * (dk > dv ? dk : dv);
}

TileBuffers lay_out(const AttentionTile& a) {
    TileBuffers b;
    b.dk = padded(a.key);
    b.dv = padded(a.value);
    b.queries = a.scratch;
    b.scores = b.queries + static_cast<size_t>(a.rows) * static_cast<size_t>(b.dk);
    b.keys = b.scores + static_cast<size_t>(a.rows) * kTile;
    b.values = b.keys;
    b.value_stride = a.values ? b.dv : b.dk;
    return b;
}

// The keys or the values of one KV head.
struct CacheRows {
    const uint16_t* base;
    size_t page_stride;
    int features;
};

// Those of positions begin .. end - 1, at most a tile: one stretch of memory a page.
struct Stretches {
    const uint16_t* at[kTile];
    int rows[kTile];
    int count = 0;
    int features;

    Stretches(const AttentionTile& a, const CacheRows& from, int64_t begin, int64_t end)
        : features(from.features) {
        int64_t number = begin / a.page_size, row = begin - number * a.page_size;
        for (; begin < end; number++, row = 0) {
            const int64_t page = a.ring ? number % a.ring : a.pages[number];
            const int64_t here = a.page_size - row < end - begin ? a.page_size - row : end - begin;
            at[count] = from.base + static_cast<size_t>(page) * from.page_stride +
                        static_cast<size_t>(row * features);
            rows[count++] = static_cast<int>(here);
            begin += here;
        }
    }
};

// The rows as float32, zeros to the end of row and tile.
void widen(const Stretches& from, float* out, int stride) {
    const float* end = out + kTile * stride;
    const int features = from.features;
    for (int s = 0; s < from.count; s++) {
        const uint16_t* row = from.at[s];
        for (int i = 0; i < from.rows[s]; i++, row += features, out += stride) {
            int f = 0;
#pragma GCC unroll 4
            for (; f + W <= features; f += W) store(out + f, load_half(row + f));
            if (f < features) store(out + f, F16::part(row + f, features - f));
        }
    }
    std::memset(out, 0, static_cast<size_t>(end - out) * sizeof(float));
}

// Asks for the next tile's cache rows, a few lines at a time between the arithmetic of this tile:
// the hardware cannot foresee the scattered pages, and a core has few outstanding misses.
class Ahead {
public:
    explicit Ahead(int steps) : steps_(steps) {}
    void add(const Stretches& from) {
        for (int s = 0; s < from.count; s++) {
            const int64_t size = int64_t{from.rows[s]} * from.features;
            begin_[count_] = reinterpret_cast<const char*>(from.at[s]);
            end_[count_++] = reinterpret_cast<const char*>(from.at[s] + size);
            total_ += static_cast<int>((size * 2 + 63) / 64);
        }
        at_ = count_ ? begin_[0] : nullptr;
        lines_ = (total_ + steps_ - 1) / steps_;
    }
    inline void step() {
        for (int i = 0; i < lines_ && now_ < count_; i++) {
            __builtin_prefetch(at_);
            at_ += 64;
            if (at_ < end_[now_]) continue;
            now_++;
            at_ = now_ < count_ ? begin_[now_] : nullptr;
        }
    }

private:
    const char* begin_[2 * kTile];
    const char* end_[2 * kTile];
    const char* at_ = nullptr;
    const int steps_;
    int count_ = 0;
    int now_ = 0;
    int total_ = 0;
    int lines_ = 0;
};

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
