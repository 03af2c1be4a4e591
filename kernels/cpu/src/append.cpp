// Rotary embedding of queries and keys, and the append to the KV cache.

#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace ktchat {

Status check_kv_slots(const KvSlots& s) {
    const int64_t size = s.cache->page_size;
    const int64_t used = (s.start + s.n + size - 1) / size;
    if (s.layer < 0 || s.layer >= s.cache->layers || s.start < 0) return kBadIndex;
    if (s.cache->ring) return s.n > s.cache->ring * size ? kBadIndex : kOk;
    if (used > s.page_count) return kBadIndex;
    for (int64_t i = 0; i < used; i++) {
        if (s.pages[i] < 0 || s.pages[i] >= s.cache->pages) return kBadIndex;
    }
    return kOk;
}

Status check_window(const KvSlots& s, int64_t window) {
    const int64_t room = s.cache->ring * s.cache->page_size;
    if (window < 0) return kBadArgument;
    return room && (window < 1 || s.n > room - window + 1) ? kBadArgument : kOk;
}

namespace {

struct Slot {
    size_t page;
    int offset;  // positions into the page
};

Slot slot_of(const KvSlots& slots, int64_t position) {
    const int64_t size = slots.cache->page_size, ring = slots.cache->ring;
    const int64_t page = ring ? position / size % ring : slots.pages[position / size];
    return {static_cast<size_t>(page), static_cast<int>(position % size)};
}

void append_key(const Kernels& kernels, const KvSlots& slots, int64_t head, const Slot& slot,
                const float* row) {
    const Cache& c = *slots.cache;
    const int features = static_cast<int>(c.key);
    uint8_t* page = c.key_head(slots.layer, head) + slot.page * c.page_bytes(features);
    kernels.append_row(*c.format, row, features, page, static_cast<int>(c.page_size), slot.offset,
                       false);
}

void append_value(const Kernels& kernels, const KvSlots& slots, int64_t head, const Slot& slot,
                  const float* row) {
    const Cache& c = *slots.cache;
    const int features = static_cast<int>(c.value);
    uint8_t* page = c.value_head(slots.layer, head) + slot.page * c.page_bytes(features);
    kernels.append_row(*c.format, row, features, page, static_cast<int>(c.page_size), slot.offset,
                       true);
}

// A token is little work: with few of them the caller does it alone.
template <class Body>
void each_token(Context& c, int64_t n, const Body& body) {
    const int64_t step = 4;
    const auto some = [&](int64_t chunk, int) {
        const int64_t end = std::min(n, (chunk + 1) * step);
        for (int64_t t = chunk * step; t < end; t++) body(t);
    };
    c.pool.run({phase((n + step - 1) / step, some)});
}

}  // namespace

void rope_append(Context& c, float* q, int64_t q_heads, float* k, const float* v,
                 const HeadNorms& norms, const Rope& rope, const KvSlots& slots) {
    const Cache& cache = *slots.cache;
    const Kernels& kernels = *c.kernels;
    c.arena.reset();
    const int64_t values = cache.heads * cache.value;
    float* normed = norms.values ? c.arena.take<float>(slots.n * values) : nullptr;
    const float width = static_cast<float>(cache.value);
    const RopeTable& table =
        c.ropes.prepare(rope.frequencies, rope.pairs, rope.magnitude, slots.start, slots.n);

    const auto rotate = [&](float* heads, int64_t count, const float* weight, int64_t t) {
        if (weight && norms.all) {
            kernels.rms_norm(heads, weight, norms.eps, count * cache.key, heads);
        }
        for (int64_t h = 0; h < count; h++) {
            float* head = heads + h * cache.key;
            if (weight && !norms.all) kernels.rms_norm(head, weight, norms.eps, cache.key, head);
            kernels.rotate(head + rope.offset, &table.cos[static_cast<size_t>(t * rope.pairs)],
                           &table.sin[static_cast<size_t>(t * rope.pairs)], rope.pairs,
                           rope.interleaved);
        }
    };
    each_token(c, slots.n, [&](int64_t t) {
        rotate(q + t * q_heads * cache.key, q_heads, norms.q, t);
        float* key = k + t * cache.heads * cache.key;
        const Slot slot = slot_of(slots, slots.start + t);
        for (int64_t h = 0; h < cache.heads; h++) {  // before the keys change, which may be the same
            const float* value = v + t * values + h * cache.value;
            if (norms.values) {
                float* row = normed + t * values + h * cache.value;
                std::copy(value, value + cache.value, row);
                kernels.unit(row, std::sqrt(width), norms.eps * width, cache.value);
                value = row;
            }
            append_value(kernels, slots, h, slot, value);
        }
        rotate(key, cache.heads, norms.k, t);
        for (int64_t h = 0; h < cache.heads; h++) {
            append_key(kernels, slots, h, slot, key + h * cache.key);
        }
    });
}

void latent_append(Context& c, float* q, int64_t heads, const float* kv, const float* norm,
                   float eps, const Rope& rope, const KvSlots& slots) {
    const int64_t features = slots.cache->key, latent = features - 2 * rope.pairs;
    const int64_t head_features = rope.offset + 2 * rope.pairs;
    const Kernels& kernels = *c.kernels;
    c.arena.reset();
    float* rows = c.arena.take<float>(slots.n * features);
    const RopeTable& table =
        c.ropes.prepare(rope.frequencies, rope.pairs, rope.magnitude, slots.start, slots.n);

    each_token(c, slots.n, [&](int64_t t) {
        const float* cos = &table.cos[static_cast<size_t>(t * rope.pairs)];
        const float* sin = &table.sin[static_cast<size_t>(t * rope.pairs)];
        for (int64_t h = 0; h < heads; h++) {
            float* head = q + (t * heads + h) * head_features;
            kernels.rotate(head + rope.offset, cos, sin, rope.pairs, rope.interleaved);
        }
        float* row = rows + t * features;
        kernels.rms_norm(kv + t * features, norm, eps, latent, row);
        std::memcpy(row + latent, kv + t * features + latent,
                    static_cast<size_t>(2 * rope.pairs) * sizeof(float));
        kernels.rotate(row + latent, cos, sin, rope.pairs, rope.interleaved);
        append_key(kernels, slots, 0, slot_of(slots, slots.start + t), row);
    });
}

}  // namespace ktchat
