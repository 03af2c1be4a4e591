// The thread pool. It knows chunks of work and when they are done; it does not know what they are.
//
// A call of `run` is a list of phases; phase p + 1 starts when every chunk of phase p is done.
// Chunks are claimed one by one from an atomic ticket, so a thread that the system has put aside
// delays only the chunk it holds: completion counts chunks, never threads, and the caller alone can
// do them all.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace ktchat {

struct Phase {
    int64_t chunks;
    void (*function)(const void* self, int64_t chunk, int worker);
    const void* self;
};

// A phase that calls `body(chunk, worker)`; `body` must outlive the run.
template <class Body>
Phase phase(int64_t chunks, const Body& body) {
    return {chunks,
            [](const void* self, int64_t chunk, int worker) {
                (*static_cast<const Body*>(self))(chunk, worker);
            },
            &body};
}

class Pool {
public:
    // `cpus` has one entry a thread to pin to, or is empty.
    Pool(int threads, const std::vector<int>& cpus);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return threads_; }

    // Runs the phases in order on all threads, the caller being worker 0; returns when all is done.
    template <size_t N>
    void run(const Phase (&phases)[N]) {
        run(phases, N);
    }
    void run(const Phase* phases, size_t count);

private:
    bool has_work() const;
    bool work(int worker);
    void open(const Phase& phase);
    void advance();
    void wake();
    void worker_loop(int worker, int cpu);
    template <class Ready>
    void wait(const Ready& ready);

    const int threads_;
    const int process_;  // a forked child has this object but not its threads
    std::vector<std::thread> workers_;
    std::mutex owner_;  // one run at a time

    const Phase* next_ =
        nullptr;  // phases not yet opened; touched only by the thread that advances
    const Phase* end_ = nullptr;

    // Generation of the phase (high half) and its next unclaimed chunk (low half, kClosed while the
    // phase is being changed). The separate lines keep claims from disturbing waiters.
    alignas(64) std::atomic<uint64_t> ticket_{0xffffffffu};
    alignas(64) std::atomic<const Phase*> current_{nullptr};
    std::atomic<uint32_t> limit_{0};
    alignas(64) std::atomic<int64_t> pending_{0};
    alignas(64) std::atomic<bool> finished_{true};
    std::atomic<bool> stop_{false};
    std::atomic<uint32_t> epoch_{0};  // counts opened phases, finished runs and the stop
    std::atomic<int> sleepers_{0};
    std::mutex sleep_mutex_;
    std::condition_variable sleep_;
};

}  // namespace ktchat
