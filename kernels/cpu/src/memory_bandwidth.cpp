// Memory read bandwidth: the limit that decoding speed is compared with.
//
// Threads, each pinned to a CPU of its own, claim chunks of a buffer that no cache holds and sum
// them with independent accumulators of full vectors. A round lasts from the moment the first
// thread begins until all chunks are summed; the median of the rounds counts. Threads meet by
// spinning: a thread that the system wakes milliseconds late would make the round look shorter or
// longer than it is. Huge pages are asked for, so that address translation does not limit.

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

typedef int64_t Vector __attribute__((vector_size(64)));

using Clock = std::chrono::steady_clock;

inline __attribute__((always_inline)) int64_t add_all(const char* data, size_t bytes) {
    const Vector* at = reinterpret_cast<const Vector*>(data);
    const Vector* end = at + bytes / sizeof(Vector);
    Vector total[8] = {};
    for (; at + 8 <= end; at += 8) {
        for (int i = 0; i < 8; ++i) total[i] += at[i];
    }
    for (int i = 1; i < 8; ++i) total[0] += total[i];
    int64_t result = 0;
    for (int i = 0; i < 8; ++i) result += total[0][i];
    return result;
}

int64_t add_all_plain(const char* data, size_t bytes) { return add_all(data, bytes); }

#if defined(__x86_64__)
__attribute__((target("avx2"))) int64_t add_all_avx2(const char* data, size_t bytes) {
    return add_all(data, bytes);
}

__attribute__((target("avx512f"))) int64_t add_all_avx512(const char* data, size_t bytes) {
    return add_all(data, bytes);
}
#endif

using Sum = int64_t (*)(const char*, size_t);

// The widest loads this CPU has.
Sum widest() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return add_all_avx512;
    if (__builtin_cpu_supports("avx2")) return add_all_avx2;
#endif
    return add_all_plain;
}

// CPUs this process may use, in the system's order.
std::vector<int> allowed_cpus() {
    std::vector<int> cpus;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
        }
    }
    return cpus;
}

void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

constexpr size_t kChunk = size_t(1) << 20;

// Threads that wait for each other, spinning; they give way to others only after a while.
class Meeting {
public:
    explicit Meeting(int threads) : threads_(threads) {}

    void wait() {
        const int round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
            if (spins > 20000) std::this_thread::yield();
        }
    }

private:
    const int threads_;
    std::atomic<int> arrived_{0};
    std::atomic<int> round_{0};
};

class Reading {
public:
    Reading(char* data, size_t chunks, int threads, double seconds)
        : data_(data),
          chunks_(chunks),
          threads_(threads),
          seconds_(seconds),
          starts_(threads),
          sums_(threads),
          meeting_(threads) {}

    double gb_per_second() {
        const std::vector<int> cpus = allowed_cpus();
        std::vector<std::thread> others;
        for (int i = 0; i < threads_; ++i) {
            const int cpu = cpus.empty() ? -1 : cpus[i % cpus.size()];
            others.emplace_back([this, i, cpu] { work(i, cpu); });
        }
        for (std::thread& thread : others) thread.join();
        std::sort(rounds_.begin(), rounds_.end());
        return double(chunks_ * kChunk) / rounds_[rounds_.size() / 2] / 1e9;
    }

private:
    void work(int index, int cpu) {
        if (cpu >= 0) pin(cpu);
        for_each_chunk([](char* chunk) { std::memset(chunk, 1, kChunk); });
        const Clock::time_point begin = Clock::now();
        while (!done_) {
            meeting_.wait();
            if (index == 0) next_ = 0;
            meeting_.wait();
            starts_[index] = Clock::now();
            for_each_chunk([&](char* chunk) { sums_[index] += sum_(chunk, kChunk); });
            meeting_.wait();
            if (index == 0) {
                const Clock::time_point end = Clock::now();
                const Clock::time_point start = *std::min_element(starts_.begin(), starts_.end());
                rounds_.push_back(std::chrono::duration<double>(end - start).count());
                done_ = std::chrono::duration<double>(end - begin).count() >= seconds_;
            }
            meeting_.wait();
        }
    }

    template <class Body>
    void for_each_chunk(const Body& body) {
        for (size_t i; (i = next_++) < chunks_;) body(data_ + i * kChunk);
    }

    char* data_;
    const Sum sum_ = widest();
    const size_t chunks_;
    const int threads_;
    const double seconds_;
    std::atomic<size_t> next_{0};
    bool done_ = false;  // written by thread 0 between two meetings
    std::vector<Clock::time_point> starts_;
    std::vector<int64_t> sums_;   // kept, so that the sums are computed
    std::vector<double> rounds_;
    Meeting meeting_;
};

}  // namespace

// Memory reads in GB/s (10^9 bytes) of `threads` threads over `bytes` bytes, the median of rounds
// for about `seconds`; 0 when the memory is not to be had or the arguments make no sense.
extern "C" __attribute__((visibility("default"))) double kt_memory_bandwidth(size_t bytes, int threads,
                                                                       double seconds) {
    if (threads < 1 || threads > 1024 || bytes < kChunk * threads) return 0.0;
    const size_t size = bytes / kChunk * kChunk;
    void* data =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return 0.0;
    madvise(data, size, MADV_HUGEPAGE);
    double result;
    {
        Reading reading(static_cast<char*>(data), size / kChunk, threads, seconds);
        result = reading.gb_per_second();
    }
    munmap(data, size);
    return result;
}
