// The thread pool: runs phases of chunks on all threads.
//
// A call of `run` is a list of phases; phase p + 1 starts when every chunk of phase p is done.
// Every worker has a stretch of a phase's chunks of its own and claims them one by one; when it has
// no more it claims from the others' stretches. A claim by the owner touches only a cache line that
// it has already (between two core complexes a line takes 0.2 us to come over), and a worker reads
// one stretch of memory. A thread that the system has put aside delays only what it holds:
// completion counts chunks, never threads, and the caller alone can do them all. A phase of one
// chunk is done by whoever ends the phase before it.
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
    // The worker whose stretch has a chunk of so many: who does it unless another is done first.
    int owner(int64_t chunk, int64_t chunks) const {
        return static_cast<int>(((chunk + 1) * threads_ - 1) / chunks);
    }

    // While the byte at `flag` is not 0, chunks are claimed and reported but not run, so that a run
    // ends soon and what it made is worthless. Null: there is no flag. Not during a run.
    void heed(const char* flag) { flag_.store(flag, std::memory_order_relaxed); }

    // Runs the phases in order on all threads, the caller being worker 0; returns when all is done.
    template <size_t N>
    void run(const Phase (&phases)[N]) {
        run(phases, N);
    }
    void run(const Phase* phases, size_t count);

private:
    // The stretch of a worker, in a cache line of its own. `ticket` is the generation of the phase
    // (high half) and the next unclaimed chunk (low half, kClosed while the rest is being changed).
    struct alignas(64) Stretch {
        std::atomic<uint64_t> ticket{0xffffffffu};
        std::atomic<uint32_t> end{0};
        std::atomic<void (*)(const void*, int64_t, int)> function{nullptr};
        std::atomic<const void*> self{nullptr};
    };

    void call(void (*function)(const void*, int64_t, int), const void* self, int64_t chunk,
              int worker) const;
    bool opened_since(int worker, uint32_t generation) const;
    bool work_one(Stretch& stretch, int worker);
    void work(int worker, uint32_t& generation);
    void open(const Phase& phase);
    void advance(int worker);
    void announce();
    void worker_loop(int worker, int cpu);
    template <class Ready>
    void wait(const Ready& ready);

    const int threads_;
    const int process_;  // a forked child has this object but not its threads
    std::vector<Stretch> stretches_;
    std::vector<std::thread> workers_;
    std::atomic<const char*> flag_{nullptr};
    std::mutex owner_;  // one run at a time

    // Touched only by the thread that advances.
    const Phase* next_ = nullptr;  // phases not yet opened
    const Phase* end_ = nullptr;
    uint32_t generation_ = 0;

    alignas(64) std::atomic<int64_t> pending_{0};  // chunks of the phase that are not reported as done
    alignas(64) std::atomic<bool> finished_{true};
    std::atomic<bool> stop_{false};
    alignas(64) std::atomic<uint32_t> epoch_{0};  // counts opened phases, finished runs and the stop
    std::atomic<int> sleepers_{0};
    std::mutex sleep_mutex_;
    std::condition_variable sleep_;
};

}  // namespace ktchat
