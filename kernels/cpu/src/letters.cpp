#include "letters.h"

#include <sched.h>

#include <algorithm>
#include <new>

#include "spin.h"

namespace ktchat {

namespace {

constexpr int kSpins = 2000;          // about 50 us, then other programs may have the core
constexpr int kSpinsPerLook = 64;     // at the clock

// Whether the flag was raised before `deadline`; takes it back.
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

void answer(Letter& letter) {
    letter.begun = now_ns();
    std::fill_n(letter.answer, letter.hidden, 0.0f);
    const int64_t experts = letter.gate->count;
    int64_t status = kOk;
    for (int64_t i = 0; i < letter.top_k; i++) {
        const int32_t id = letter.ids[i];
        if (id < 0 || id >= experts) status = kBadIndex;
        letter.here[i] = status || (letter.slots && letter.slots[id] >= 0) ? -1 : id;
    }
    if (!status) {
        try {
            status = moe_add(*letter.context, letter.x, 1, letter.here, letter.weights, letter.top_k,
                             *letter.gate, *letter.up, *letter.down, letter.answer);
        } catch (const std::bad_alloc&) {
            status = kNoMemory;
        }
    }
    letter.status = status;
    letter.done = now_ns();
}

}  // namespace ktchat

using namespace ktchat;

// Answers `count` letters in the order in which the device asks. Every letter is answered, so that the
// device never waits for ever: after a failure, or `patience` ns without a question, with what is there.
// Returns the first failure; kLate where the device did not ask.
extern "C" __attribute__((visibility("default"))) int kt_follow(Letter* const* letters, int64_t count,
                                                                int64_t patience) {
    int64_t failed = kOk;
    for (int64_t i = 0; i < count; i++) {
        Letter& letter = *letters[i];
        if (failed != kLate && !taken(letter.asked, now_ns() + patience)) failed = kLate;
        if (failed != kLate) {
            answer(letter);
            if (!failed) failed = letter.status;
        }
        __atomic_store_n(letter.answered, 1, __ATOMIC_RELEASE);
    }
    return static_cast<int>(failed);
}

// One answer, for a device that calls the host in the order of its work (a CUDA host function).
extern "C" __attribute__((visibility("default"))) void kt_answer(void* letter) {
    answer(*static_cast<Letter*>(letter));
}
