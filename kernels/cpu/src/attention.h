// The ops on the paged KV cache: append and attention, grouped-query and latent. Shapes are checked
// by the caller; page numbers are checked here.
#pragma once

#include "context.h"

namespace ktchat {

// Rotary embedding of the features offset .. offset + 2 * pairs - 1 of a head (kernels.ops.Rope).
struct Rope {
    const double* frequencies;
    int64_t pairs;
    int64_t offset;
    float magnitude;
    int32_t interleaved;
};

// The KV slots of new tokens: positions start .. start + n - 1 of a sequence with these pages.
struct KvSlots {
    const Cache* cache;
    int64_t layer;
    const int32_t* pages;
    int64_t page_count;
    int64_t start;
    int64_t n;
};

// An empty cache. Throws std::bad_alloc.
std::unique_ptr<Cache> make_cache(bool eight_bits, int64_t layers, int64_t pages, int64_t page_size,
                                  int64_t heads, int64_t key, int64_t value, int64_t ring);

// kBadIndex when the pages do not cover the positions or a page is outside the cache, or a ring is
// shorter than the new tokens.
Status check_kv_slots(const KvSlots& slots);

// RMSNorms of queries and keys by their weights, both null or both given: of each head, or of all heads
// together; and of each value head without a weight.
struct HeadNorms {
    const float* q;
    const float* k;
    bool all;
    bool values;
    float eps;
};

// kBadArgument when a ring does not hold what the new tokens see of a window; 0: all positions.
Status check_window(const KvSlots& slots, int64_t window);

// `v` may be `k`.
void rope_append(Context& c, float* q, int64_t q_heads, float* k, const float* v,
                 const HeadNorms& norms, const Rope& rope, const KvSlots& slots);
// `sinks`, one a head, may be null.
void attention(Context& c, const float* q, int64_t heads, float scale, const KvSlots& slots,
               int64_t window, const float* sinks, float* out);

// q rows have `heads` heads of rope.offset + 2 * pairs features; kv rows the cache's key features.
void latent_append(Context& c, float* q, int64_t heads, const float* kv, const float* norm,
                   float eps, const Rope& rope, const KvSlots& slots);
void latent_attention(Context& c, const float* q, int64_t heads, float scale, const Matrix& k_b,
                      const Matrix& v_b, const KvSlots& slots, float* out);

}  // namespace ktchat
