#include "pool.h"

#include <sched.h>
#include <unistd.h>

#include <chrono>

#if defined(__linux__)
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ktchat {
namespace {

constexpr uint32_t kClosed = 0xffffffffu;
constexpr auto kSpin = std::chrono::microseconds(60);    // longer than Python needs between two ops
constexpr auto kYield = std::chrono::microseconds(400);  // then give the core to others, then sleep

inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

void pin(int cpu) {
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(cpu), &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
#else
    (void)cpu;
#endif
}

}  // namespace

Pool::Pool(int threads, const std::vector<int>& cpus) : threads_(threads), process_(getpid()) {
    for (int worker = 1; worker < threads_; worker++) {
        const int cpu = cpus.empty() ? -1 : cpus[static_cast<size_t>(worker) % cpus.size()];
        workers_.emplace_back([this, worker, cpu] { worker_loop(worker, cpu); });
    }
}

Pool::~Pool() {
    stop_.store(true);
    epoch_.fetch_add(1);
    wake();
    for (auto& worker : workers_) worker.join();
}

void Pool::run(const Phase* phases, size_t count) {
    if (getpid() != process_) {  // a lock may have been held when the process was forked: touch none
        for (size_t p = 0; p < count; p++) {
            for (int64_t i = 0; i < phases[p].chunks; i++) phases[p].function(phases[p].self, i, 0);
        }
        return;
    }
    std::lock_guard<std::mutex> lock(owner_);
    next_ = phases;
    end_ = phases + count;
    finished_.store(false, std::memory_order_relaxed);
    advance();
    while (!finished_.load(std::memory_order_acquire)) {
        if (!work(0)) wait([&] { return finished_.load(std::memory_order_acquire) || has_work(); });
    }
}

bool Pool::has_work() const {
    return static_cast<uint32_t>(ticket_.load(std::memory_order_acquire)) <
           limit_.load(std::memory_order_acquire);
}

// Claims and runs one chunk; false when the current phase has none left.
bool Pool::work(int worker) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
        // `limit_` of a later phase is written after the ticket has been closed, so a claim made
        // with a limit or a phase that does not belong to `ticket` fails the exchange.
        const uint32_t limit = limit_.load(std::memory_order_acquire);
        const Phase* phase = current_.load(std::memory_order_acquire);
        const uint32_t chunk = static_cast<uint32_t>(ticket);
        if (chunk >= limit) return false;
        if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                          std::memory_order_acquire)) {
            phase->function(phase->self, chunk, worker);
            if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) advance();
            return true;
        }
    }
}

// Opens the next phase that has work, or finishes the run. Called by whoever did the last chunk.
void Pool::advance() {
    while (next_ != end_ && next_->chunks == 0) next_++;
    if (next_ == end_) {
        finished_.store(true, std::memory_order_release);
        epoch_.fetch_add(1);
        wake();
        return;
    }
    const Phase& phase = *next_++;
    const bool shared = phase.chunks > 1;  // once open, the phase may end and be gone
    open(phase);
    if (shared) wake();
}

void Pool::open(const Phase& phase) {
    const uint64_t generation = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store(generation << 32 | kClosed, std::memory_order_seq_cst);
    current_.store(&phase, std::memory_order_release);
    limit_.store(static_cast<uint32_t>(phase.chunks), std::memory_order_release);
    pending_.store(phase.chunks, std::memory_order_release);
    ticket_.store(generation << 32, std::memory_order_seq_cst);
    epoch_.fetch_add(1);
}

void Pool::wake() {
    if (sleepers_.load() == 0) return;
    {
        std::lock_guard<std::mutex> lock(sleep_mutex_);
    }
    sleep_.notify_all();
}

// Waits until `ready`: spins for as long as an op's neighbours take, yields for a little, then
// sleeps.
template <class Ready>
void Pool::wait(const Ready& ready) {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    for (;;) {
        for (int i = 0; i < 16; i++) {
            if (ready()) return;
            relax();
        }
        const auto waited = Clock::now() - begin;
        if (waited > kYield) break;
        if (waited > kSpin) sched_yield();
    }
    std::unique_lock<std::mutex> lock(sleep_mutex_);
    sleepers_.fetch_add(1);
    while (!ready()) {
        const uint32_t epoch = epoch_.load();
        if (ready()) break;
        sleep_.wait(lock, [&] { return epoch_.load() != epoch; });
    }
    sleepers_.fetch_sub(1);
}

void Pool::worker_loop(int worker, int cpu) {
    if (cpu >= 0) pin(cpu);
    while (!stop_.load(std::memory_order_acquire)) {
        if (!work(worker))
            wait([&] { return stop_.load(std::memory_order_acquire) || has_work(); });
    }
}

}  // namespace ktchat
