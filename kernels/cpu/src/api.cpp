// The C ABI, whose table is ops.inc.h. Nothing throws across it: memory that runs out becomes
// kNoMemory. Pointers and shapes come checked from Python; page, expert and token numbers, which
// are data, are checked by the ops.

#include <algorithm>
#include <cstring>
#include <new>

#include "attention.h"
#include "expert_requests.h"
#include "experts.h"
#include "linear.h"
#include "op_table.h"
#include "recurrent.h"
#include "spin.h"
#include "vocabulary.h"

using namespace ktchat;

#define KTCHAT_API extern "C" __attribute__((visibility("default")))

namespace {

template <class Body>
int guarded(const Body& body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
}

}  // namespace

// 1 when this build and this CPU have the instruction set.
KTCHAT_API int kt_supported(const char* isa) { return find_kernels(isa) != nullptr; }

// Null when the instruction set is not there or threads cannot be started. `cpus` may be empty.
KTCHAT_API Context* kt_open(const char* isa, int threads, const int* cpus, int cpu_count) {
    const Kernels* kernels = find_kernels(isa);
    if (!kernels || threads < 1) return nullptr;
    try {
        return new Context(kernels, threads, std::vector<int>(cpus, cpus + cpu_count));
    } catch (const std::exception&) {
        return nullptr;
    }
}

KTCHAT_API void kt_close(Context* c) { delete c; }

// Ops are given up while the byte at `flag` is not 0; null: never.
KTCHAT_API void kt_heed(Context* c, const char* flag) { c->pool.heed(flag); }

// Null when there are no kernels for the type with this block, or memory runs out.
// `repack`: into tiles of 16 rows, when the type has them; `data` is then not needed any more.
KTCHAT_API Matrix* kt_matrix(Context* c, int type, int64_t block, size_t bytes, int64_t count,
                             int64_t rows, int64_t cols, const uint8_t* data, int repack) {
    try {
        auto m = c->make_matrix(type, block, bytes);
        if (!m) return nullptr;
        m->count = count;
        m->rows = rows;
        m->cols = cols;
        m->data = data;
        m->row_bytes = m->row_prefix + static_cast<size_t>(cols / block) * bytes;
        m->bytes = static_cast<size_t>(rows) * m->row_bytes;
        if (repack) c->repack(*m);
        return m.release();
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

KTCHAT_API void kt_matrix_free(Matrix* m) { delete m; }

// Whether `kt_matrix` can repack this type.
KTCHAT_API int kt_has_tiles(int type) { return kernels_plain()->tile16_type(type) != nullptr; }

// An empty cache in memory of its own, which is touched when it is used. Null when there is no such
// format, or memory runs out. `eight_bits`: in 8 bits, else in 16.
KTCHAT_API Cache* kt_cache(int eight_bits, int64_t layers, int64_t pages, int64_t page_size,
                           int64_t heads, int64_t key, int64_t value, int64_t ring) {
    try {
        return make_cache(eight_bits != 0, layers, pages, page_size, heads, key, value, ring)
            .release();
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

// Where all keys lie, or all values, and how many bytes of them a head has in a page.
KTCHAT_API uint8_t* kt_cache_data(const Cache* cache, int values) {
    return values ? cache->values : cache->keys;
}

KTCHAT_API int64_t kt_cache_head_bytes(const Cache* cache, int values) {
    return static_cast<int64_t>(cache->head_bytes(values ? cache->value : cache->key));
}

KTCHAT_API void kt_cache_free(Cache* cache) { delete cache; }

// Null when memory runs out.
KTCHAT_API RecurrentState* kt_state(int64_t layers, int64_t slots, int64_t key_heads,
                                    int64_t value_heads, int64_t key, int64_t value, int64_t kernel,
                                    int tiled) {
    const DeltaNet net{key_heads, value_heads, key, value, kernel, tiled != 0};
    try {
        return new RecurrentState(net, layers, slots);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

KTCHAT_API void kt_state_free(RecurrentState* state) { delete state; }

KTCHAT_API void kt_state_clear(Context* c, RecurrentState* state) { state->clear(*c); }

KTCHAT_API void kt_state_copy(Context* c, RecurrentState* state, int64_t source, int64_t target) {
    state->copy(*c, source, target);
}

// One layer of a slot, for the tests.
KTCHAT_API void kt_state_read(const RecurrentState* state, int64_t layer, int64_t slot, float* conv,
                              float* matrices) {
    state->read(layer, slot, conv, matrices);
}

// A slot's numbers, all layers, as they lie in memory.
KTCHAT_API float* kt_state_slot(const RecurrentState* state, int64_t slot) {
    return state->conv(0, slot);
}

KTCHAT_API int64_t kt_state_slot_floats(const RecurrentState* state) {
    return state->slot_floats();
}

KTCHAT_API int kt_embed(Context* c, const Matrix* table, const int32_t* tokens, int64_t n,
                        float factor, float* y) {
    return guarded([&] { return embed(*c, *table, tokens, n, factor, y); });
}

KTCHAT_API int kt_zeros(Context* c, float* y, int64_t count) {
    return guarded([&] { return zeros(*c, y, count), kOk; });
}

KTCHAT_API int kt_soft_cap(Context* c, float* x, int64_t count, float cap) {
    return guarded([&] { return soft_cap(*c, x, count, cap), kOk; });
}

KTCHAT_API int kt_norm(Context* c, const float* x, int64_t n, int64_t cols, const float* weight,
                       float eps, float* y) {
    return guarded([&] { return norm(*c, x, n, cols, weight, eps, y), kOk; });
}

KTCHAT_API int kt_norm_add(Context* c, const float* x, int64_t n, int64_t cols,
                           const float* weight, float eps, const float* scale, float* y) {
    const float factor = scale ? *scale : 1.0f;
    return guarded([&] { return norm_add(*c, x, n, cols, weight, eps, factor, y), kOk; });
}

KTCHAT_API int kt_norm_linear(Context* c, const float* x, int64_t n, int64_t cols,
                              const float* norm, float eps, int64_t count, const Matrix* w0,
                              float* y0, const float* b0, const Matrix* w1, float* y1,
                              const float* b1, const Matrix* w2, float* y2, const float* b2,
                              const Matrix* w3, float* y3, const float* b3) {
    const Product products[kMaxWeights] = {{w0, y0, b0}, {w1, y1, b1}, {w2, y2, b2}, {w3, y3, b3}};
    const int used = static_cast<int>(count);
    return guarded([&] { return norm_linear(*c, x, n, cols, norm, eps, products, used), kOk; });
}

KTCHAT_API int kt_linear_add(Context* c, const float* x, int64_t n, const Matrix* w,
                             float* residual, const float* bias) {
    return guarded([&] { return linear_add(*c, x, n, *w, residual, bias), kOk; });
}

KTCHAT_API int kt_rope_append(Context* c, float* q, int64_t q_heads, float* k, const float* v,
                              const float* q_norm, const float* k_norm, int norm_all,
                              int norm_values, float eps, const Rope* rope, const Cache* cache,
                              int64_t layer, const int32_t* pages, int64_t page_count,
                              int64_t start, int64_t n) {
    const KvSlots slots{cache, layer, pages, page_count, start, n};
    if (const Status status = check_kv_slots(slots)) return status;
    const HeadNorms norms{q_norm, k_norm, norm_all != 0, norm_values != 0, eps};
    return guarded([&] { return rope_append(*c, q, q_heads, k, v, norms, *rope, slots), kOk; });
}

KTCHAT_API int kt_attention(Context* c, const float* q, int64_t heads, float scale,
                            const Cache* cache, int64_t layer, const int32_t* pages,
                            int64_t page_count, int64_t start, int64_t n, int64_t window,
                            const float* sinks, float* out) {
    const KvSlots slots{cache, layer, pages, page_count, start, n};
    if (const Status status = check_kv_slots(slots)) return status;
    if (const Status status = check_window(slots, window)) return status;
    return guarded([&] { return attention(*c, q, heads, scale, slots, window, sinks, out), kOk; });
}

KTCHAT_API int kt_latent_append(Context* c, float* q, int64_t heads, const float* kv,
                                const float* norm, float eps, const Rope* rope, const Cache* cache,
                                int64_t layer, const int32_t* pages, int64_t page_count,
                                int64_t start, int64_t n) {
    const KvSlots slots{cache, layer, pages, page_count, start, n};
    if (const Status status = check_kv_slots(slots)) return status;
    return guarded([&] { return latent_append(*c, q, heads, kv, norm, eps, *rope, slots), kOk; });
}

KTCHAT_API int kt_latent_attention(Context* c, const float* q, int64_t heads, float scale,
                                   const Matrix* k_b, const Matrix* v_b, const Cache* cache,
                                   int64_t layer, const int32_t* pages, int64_t page_count,
                                   int64_t start, int64_t n, float* out) {
    const KvSlots slots{cache, layer, pages, page_count, start, n};
    if (const Status status = check_kv_slots(slots)) return status;
    return guarded(
        [&] { return latent_attention(*c, q, heads, scale, *k_b, *v_b, slots, out), kOk; });
}

KTCHAT_API int kt_route(Context* c, const float* x, int64_t n, const float* norm, float eps,
                        const Matrix* router, const float* bias, const float* logit_bias,
                        const Routing* routing, const float* scales, float* normed, int32_t* ids,
                        float* weights) {
    const RouterVectors vectors{bias, logit_bias, scales};
    return guarded([&] {
        return route(*c, x, n, norm, eps, *router, vectors, *routing, normed, ids, weights), kOk;
    });
}

KTCHAT_API int kt_moe_add(Context* c, const float* x, int64_t n, const int32_t* ids,
                          const float* weights, int64_t top_k, const Matrix* gate, const Matrix* up,
                          const Matrix* down, float* residual, const Matrix* gate_bias,
                          const Matrix* up_bias, const Matrix* down_bias, int64_t activation) {
    const Experts experts{*gate, *up, *down, gate_bias, up_bias, down_bias, activation};
    return guarded([&] { return moe_add(*c, x, n, ids, weights, top_k, experts, residual); });
}

KTCHAT_API int kt_ffn_add(Context* c, const float* x, int64_t n, const Matrix* gate,
                          const Matrix* up, const Matrix* down, const float* scaler,
                          float* residual, int64_t activation) {
    const Experts experts{*gate, *up, *down, nullptr, nullptr, nullptr, activation};
    return guarded([&] { return ffn_add(*c, x, n, experts, scaler, residual); });
}

KTCHAT_API int kt_delta_net(Context* c, const float* qkv, int64_t n, const float* z,
                            const float* alpha, const float* beta, const float* conv,
                            const float* a, const float* dt, const float* norm, float eps,
                            const RecurrentState* state, int64_t layer, float* out) {
    const DeltaNetTokens tokens{qkv, n, z, alpha, beta, out};
    const DeltaNetWeights weights{conv, a, dt, norm};
    return guarded([&] { return delta_net(*c, tokens, weights, eps, *state, layer), kOk; });
}

KTCHAT_API int kt_sigmoid_gate(Context* c, float* x, const float* gate, int64_t count) {
    return guarded([&] { return sigmoid_gate(*c, x, gate, count), kOk; });
}

// Keep whose stretches have which rows from now on, or forget them.
KTCHAT_API void kt_keep_owners(Context* c, int on) { c->owners.keep(on != 0); }

// Up to `count` of them, 6 numbers each (RowOwners::Entry); how many there are.
KTCHAT_API int64_t kt_owners(const Context* c, int64_t* out, int64_t count) {
    const auto& all = c->owners.entries();
    const auto some = std::min<size_t>(static_cast<size_t>(count), all.size());
    if (some) std::memcpy(out, all.data(), some * sizeof all[0]);
    return static_cast<int64_t>(all.size());
}

// Softmax of one row, for the tests of its accuracy.
KTCHAT_API void kt_softmax(const Context* c, float* x, int64_t n) { c->kernels->softmax(x, n); }

// ---- many ops in one call -----------------------------------------------------------------------

namespace {

int call(Context* c, const Command& command) {
    using Call = int (*)(Context*, const Command&);
    constexpr Call calls[] = {
#define OP(name, arguments) \
    [](Context* c, const Command& command) { return call_recorded(kt_##name, c, command); },
#include "ops.inc.h"
#include "vocabulary.h"
    };
    constexpr int64_t count = sizeof calls / sizeof *calls;
    if (command.op < 0 || command.op >= count) return kBadArgument;
    return calls[command.op](c, command);
}

}  // namespace

// Runs the commands in order; stops at the first that fails and returns its status. `stamps` may be
// null; else it gets `count` + 1 times: command i runs from stamp i to stamp i + 1.
KTCHAT_API int kt_replay(Context* c, const Command* commands, int64_t count, int64_t* stamps) {
    for (int64_t i = 0; i < count; i++) {
        if (stamps) stamps[i] = now_ns();
        if (const int status = call(c, commands[i])) return status;
    }
    if (stamps) stamps[count] = now_ns();
    return kOk;
}

// ---- the table and the functions say the same ---------------------------------------------------

#define OP(name, arguments) static_assert(is_op(kt_##name, arguments), "kt_" #name);
#define FUNCTION(name, result, arguments) \
    static_assert(has_kinds(kt_##name, *result, arguments), "kt_" #name);
#include "ops.inc.h"
