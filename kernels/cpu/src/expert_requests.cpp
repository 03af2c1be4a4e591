#include "expert_requests.h"

#include <sched.h>

#include <algorithm>
#include <new>

#include "spin.h"

namespace ktchat {

namespace {

constexpr int kSpins = 2000;       // about 50 us, then other programs may have the core
constexpr int kSpinsPerLook = 64;  // at the clock

// Whether the flag was raised before `deadline`; lowers it.
bool taken(int32_t* flag, int64_t deadline) {
    for (int64_t spin = 0;; spin++) {
        if (__atomic_load_n(flag, __ATOMIC_ACQUIRE)) {
            __atomic_store_n(flag, 0, __ATOMIC_RELAXED);
            return true;
        }
        if (spin < kSpins) {
            relax();
        } else {
            sched_yield();
        }
        if (spin % kSpinsPerLook == kSpinsPerLook - 1 && now_ns() > deadline) return false;
    }
}

}  // namespace

void compute(ExpertRequest& request) {
    request.begun = now_ns();
    std::fill_n(request.result, request.hidden, 0.0f);
    const int64_t experts = request.gate->count;
    int64_t status = kOk;
    for (int64_t i = 0; i < request.top_k; i++) {
        const int32_t id = request.ids[i];
        if (id < 0 || id >= experts) status = kBadIndex;
        request.host_ids[i] = status || (request.slots && request.slots[id] >= 0) ? -1 : id;
    }
    if (!status) {
        try {
            const Experts experts{*request.gate,     *request.up,       *request.down,
                                  request.gate_bias, request.up_bias,   request.down_bias,
                                  request.activation};
            status = moe_add(*request.context, request.x, 1, request.host_ids, request.weights,
                             request.top_k, experts, request.result);
        } catch (const std::bad_alloc&) {
            status = kNoMemory;
        }
    }
    request.status = status;
    request.done = now_ns();
}

}  // namespace ktchat

using namespace ktchat;

int kt_serve_requests(ExpertRequest* const* requests, int64_t count, int64_t patience) {
    int64_t failed = kOk;
    for (int64_t i = 0; i < count; i++) {
        ExpertRequest& request = *requests[i];
        if (failed != kLate && !taken(request.submitted, now_ns() + patience)) failed = kLate;
        if (failed != kLate) {
            compute(request);
            if (!failed) failed = request.status;
        }
        __atomic_store_n(request.completed, 1, __ATOMIC_RELEASE);
    }
    return static_cast<int>(failed);
}

void kt_raise_flag(void* flag) { __atomic_store_n(static_cast<int32_t*>(flag), 1, __ATOMIC_RELEASE); }

void kt_serve_request(void* request) { compute(*static_cast<ExpertRequest*>(request)); }
