// The memory of a KV cache.

#include <sys/mman.h>

#include "attention.h"

namespace ktchat {
namespace {

constexpr KvFormat kSixteenBits{2, 128, 8191, 262000};
constexpr KvFormat kEightBits{1, 32, 127, 16900000};

}  // namespace

Cache::~Cache() {
    if (keys) munmap(keys, bytes(key));
    if (values) munmap(values, bytes(value));
}

std::unique_ptr<Cache> make_cache(bool eight_bits, int64_t layers, int64_t pages, int64_t page_size,
                                  int64_t heads, int64_t key, int64_t value, int64_t ring) {
    auto cache = std::make_unique<Cache>();
    cache->format = eight_bits ? &kEightBits : &kSixteenBits;
    cache->layers = layers;
    cache->pages = pages;
    cache->page_size = page_size;
    cache->heads = heads;
    cache->key = key;
    cache->value = value;
    cache->ring = ring;
    cache->keys = map_memory(cache->bytes(key));
    if (value) cache->values = map_memory(cache->bytes(value));
    return cache;
}

}  // namespace ktchat
