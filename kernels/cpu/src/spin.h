// For waiting without sleeping: a pause between two looks, and the time.
#pragma once

#include <cstdint>
#include <ctime>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ktchat {

inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Nanoseconds of the clock that Python's time.perf_counter_ns reads.
inline int64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return int64_t{1000000000} * now.tv_sec + now.tv_nsec;
}

}  // namespace ktchat
