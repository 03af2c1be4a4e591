// Flash-decoding attention (Dao et al., 2023): work is split over KV heads, blocks of query rows
// and ranges of positions, whose partial results are merged. The split depends on the shapes alone,
// never on the number of threads, so neither do the results.

#include "attention.h"

#include <algorithm>
#include <cstring>

#include "product.h"

namespace ktchat {
namespace {

constexpr int64_t kRows = 64;       // query rows that share one pass over keys and values
constexpr int64_t kShortest = 128;  // positions worth a range of their own
constexpr int64_t kItems = 32;      // enough pieces to keep the threads busy

// The query rows of one KV head, token by token: row r is head r % group of token r / group.
struct Plan {
    int64_t start;
    int64_t window;  // 0: all positions
    int64_t n;
    int64_t kv_heads;
    int64_t group;
    int64_t key;
    int64_t value;
    int64_t rows;    // of one KV head
    int64_t blocks;  // of one KV head
    int64_t edge;    // ranges begin at multiples of it
    int64_t range;   // positions
    int64_t splits;

    Plan(const KvSlots& slots, int64_t kv_heads_, int64_t group_, int64_t key_, int64_t value_,
         int64_t window_)
        : start(slots.start),
          window(window_),
          n(slots.n),
          kv_heads(kv_heads_),
          group(group_),
          key(key_),
          value(value_),
          rows(slots.n * group_),
          blocks((rows + kRows - 1) / kRows),
          edge(std::max<int64_t>(32, slots.cache->page_size)) {
        int64_t length = start + n;
        const int64_t items = kv_heads * blocks;
        // What a block's first and last token see together, from an edge on.
        if (window) length = std::min(length, window + (kRows + group - 2) / group + edge - 1);
        const int64_t wanted =
            std::min((length + kShortest - 1) / kShortest, (kItems + items - 1) / items);
        range = ((length + wanted - 1) / wanted + edge - 1) / edge * edge;
        splits = (length + range - 1) / range;
    }
    int64_t chunks() const { return kv_heads * blocks * splits; }
    // The first position that a token sees.
    int64_t first(int64_t token) const {
        return window ? std::max<int64_t>(0, start + token + 1 - window) : 0;
    }
};

// Partial results: one row of `stride` floats, a maximum and a sum for each query row and range.
struct Partials {
    size_t stride;
    float* outputs;
    float* maxima;
    float* sums;
    float* scratch;  // of every worker
    size_t scratch_size;

    Partials(Context& c, const Plan& plan, const Cache& cache) {
        const int key = static_cast<int>(plan.key), value = static_cast<int>(plan.value);
        const int64_t count = plan.kv_heads * plan.rows * plan.splits;
        stride = static_cast<size_t>(c.kernels->padded(value));
        outputs = c.arena.take<float>(count * static_cast<int64_t>(stride));
        maxima = c.arena.take<float>(count);
        sums = c.arena.take<float>(count);
        scratch_size =
            c.kernels->attention_scratch(kRows, key, value, *cache.format, !cache.values);
        scratch_size = (scratch_size + 15) / 16 * 16;
        scratch = c.arena.take<float>(static_cast<int64_t>(scratch_size) * c.pool.threads());
    }
};

// One range of one block. Partials are laid out [kv head][split][row].
void attend(const Context& c, const Plan& plan, const KvSlots& slots, const float* q, float scale,
            const float* sinks, const Partials& partials, int64_t chunk, int worker) {
    const int64_t split = chunk % plan.splits;
    const int64_t block = chunk / plan.splits % plan.blocks;
    const int64_t head = chunk / plan.splits / plan.blocks;
    const int64_t first = block * kRows, rows = std::min(kRows, plan.rows - first);
    const Cache& cache = *slots.cache;

    const float* queries[kRows];
    int firsts[kRows];
    int limits[kRows];
    float row_sinks[kRows];
    for (int64_t i = 0; i < rows; i++) {
        const int64_t token = (first + i) / plan.group, member = (first + i) % plan.group;
        queries[i] =
            q + (token * plan.kv_heads * plan.group + head * plan.group + member) * plan.key;
        firsts[i] = static_cast<int>(plan.first(token));
        limits[i] = static_cast<int>(plan.start + token + 1);
        if (sinks) row_sinks[i] = sinks[head * plan.group + member];
    }
    const int64_t base = firsts[0] / plan.edge * plan.edge;
    const size_t at = static_cast<size_t>((head * plan.splits + split) * plan.rows + first);
    AttentionTile tile;
    tile.queries = queries;
    tile.firsts = firsts;
    tile.limits = limits;
    tile.sinks = sinks && split == 0 ? row_sinks : nullptr;
    tile.rows = static_cast<int>(rows);
    tile.scale = scale;
    tile.format = cache.format;
    tile.keys = cache.key_head(slots.layer, head);
    tile.values = cache.values ? cache.value_head(slots.layer, head) : nullptr;
    tile.key_page_stride = cache.page_bytes(cache.key);
    tile.value_page_stride = cache.page_bytes(cache.value);
    tile.pages = slots.pages;
    tile.page_size = static_cast<int>(cache.page_size);
    tile.ring = cache.ring;
    tile.key = static_cast<int>(plan.key);
    tile.value = static_cast<int>(plan.value);
    tile.begin = base + split * plan.range;
    tile.end = std::min<int64_t>(limits[rows - 1], tile.begin + plan.range);
    tile.scratch = partials.scratch + static_cast<size_t>(worker) * partials.scratch_size;
    tile.outputs = partials.outputs + at * partials.stride;
    tile.maxima = partials.maxima + at;
    tile.sums = partials.sums + at;
    c.kernels->attention_tile(tile);
}

// The finished row of one token's head, into `out` (value features).
void merge(const Context& c, const Plan& plan, const Partials& partials, int64_t token,
           int64_t head, float* out) {
    const int64_t kv_head = head / plan.group, row = token * plan.group + head % plan.group;
    const size_t at = static_cast<size_t>(kv_head * plan.splits * plan.rows + row);
    const size_t step = static_cast<size_t>(plan.rows);
    c.kernels->attention_merge(partials.outputs + at * partials.stride, step * partials.stride,
                               partials.maxima + at, partials.sums + at, step,
                               static_cast<int>(plan.splits), static_cast<int>(plan.value), out);
}

}  // namespace

void attention(Context& c, const float* q, int64_t heads, float scale, const KvSlots& slots,
               int64_t window, const float* sinks, float* out) {
    const Cache& cache = *slots.cache;
    c.arena.reset();
    const Plan plan(slots, cache.heads, heads / cache.heads, cache.key, cache.value, window);
    const Partials partials(c, plan, *slots.cache);
    const auto part = [&](int64_t chunk, int worker) {
        attend(c, plan, slots, q, scale, sinks, partials, chunk, worker);
    };
    const auto join = [&](int64_t t, int) {
        for (int64_t h = 0; h < heads; h++) {
            merge(c, plan, partials, t, h, out + (t * heads + h) * cache.value);
        }
    };
    c.pool.run({phase(plan.chunks(), part), phase(slots.n, join)});
}

void latent_attention(Context& c, const float* q, int64_t heads, float scale, const Matrix& k_b,
                      const Matrix& v_b, const KvSlots& slots, float* out) {
    const int64_t n = slots.n, nope = k_b.cols, latent = k_b.rows, value = v_b.rows;
    const int64_t key = slots.cache->key, rope = key - latent;
    c.arena.reset();
    const Plan plan(slots, 1, heads, key, latent, 0);
    const Partials partials(c, plan, *slots.cache);
    // Head-major copies, so that each head is a contiguous (n, features) input of its products.
    float* bare = c.arena.take<float>(heads * n * nope);
    float* absorbed = c.arena.take<float>(n * heads * key);
    float* attn_out = c.arena.take<float>(heads * n * latent);
    const Inputs queries(c, bare, heads * n, nope, format_bit(k_b));
    const Inputs latents(c, attn_out, heads * n, latent, format_bit(v_b));
    const RowChunks k_cut(c, k_b, n, 1, heads), v_cut(c, v_b, n, 1, heads);

    const auto split_heads = [&](int64_t t, int) {
        for (int64_t h = 0; h < heads; h++) {
            const float* head = q + (t * heads + h) * (nope + rope);
            std::memcpy(bare + (h * n + t) * nope, head, static_cast<size_t>(nope) * sizeof(float));
            std::memcpy(absorbed + (t * heads + h) * key + latent, head + nope,
                        static_cast<size_t>(rope) * sizeof(float));
            queries.pack(h * n + t);
        }
    };
    const auto absorb = [&](int64_t chunk, int) {
        const int64_t h = chunk / k_cut.count(), piece = chunk % k_cut.count();
        product(k_b, h, k_cut.begin(piece), k_cut.end(piece), queries.rows(k_b.format) + h * n, n,
                [&](int64_t r, int rows, int64_t t, int tokens, const float* y) {
                    for (int k = 0; k < tokens; k++) {
                        std::memcpy(absorbed + ((t + k) * heads + h) * key + r, y + k * rows,
                                    static_cast<size_t>(rows) * sizeof(float));
                    }
                });
    };
    const auto part = [&](int64_t chunk, int worker) {
        attend(c, plan, slots, absorbed, scale, nullptr, partials, chunk, worker);
    };
    const auto join = [&](int64_t t, int) {
        for (int64_t h = 0; h < heads; h++) {
            merge(c, plan, partials, t, h, attn_out + (h * n + t) * latent);
            latents.pack(h * n + t);
        }
    };
    const auto project = [&](int64_t chunk, int) {
        const int64_t h = chunk / v_cut.count(), piece = chunk % v_cut.count();
        product(v_b, h, v_cut.begin(piece), v_cut.end(piece), latents.rows(v_b.format) + h * n, n,
                [&](int64_t r, int rows, int64_t t, int tokens, const float* y) {
                    for (int k = 0; k < tokens; k++) {
                        std::memcpy(out + ((t + k) * heads + h) * value + r, y + k * rows,
                                    static_cast<size_t>(rows) * sizeof(float));
                    }
                });
    };
    c.pool.run({phase(n, split_heads), phase(heads * k_cut.count(), absorb),
                phase(plan.chunks(), part), phase(n, join), phase(heads * v_cut.count(), project)});
}

}  // namespace ktchat
