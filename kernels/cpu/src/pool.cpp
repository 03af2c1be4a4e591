#include "pool.h"

#include <sched.h>
#include <unistd.h>

#include <chrono>

#if defined(__linux__)
#include <pthread.h>
#endif

#include "spin.h"

namespace ktchat {
namespace {

constexpr uint32_t kClosed = 0xffffffffu;

inline uint32_t generation_of(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 32); }
inline uint32_t chunk_of(uint64_t ticket) { return static_cast<uint32_t>(ticket); }

constexpr auto kSpin = std::chrono::microseconds(60);    // longer than Python needs between two ops
constexpr auto kYield = std::chrono::microseconds(400);  // then give the core to others, then sleep

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

Pool::Pool(int threads, const std::vector<int>& cpus)
    : threads_(threads), process_(getpid()), stretches_(static_cast<size_t>(threads)) {
    for (int worker = 1; worker < threads_; worker++) {
        const int cpu = cpus.empty() ? -1 : cpus[static_cast<size_t>(worker) % cpus.size()];
        workers_.emplace_back([this, worker, cpu] { worker_loop(worker, cpu); });
    }
}

Pool::~Pool() {
    stop_.store(true);
    announce();
    for (auto& worker : workers_) worker.join();
}

void Pool::run(const Phase* phases, size_t count) {
    if (getpid() != process_) {  // a lock may have been held when the process was forked: touch none
        for (size_t p = 0; p < count; p++) {
            for (int64_t i = 0; i < phases[p].chunks; i++) {
                call(phases[p].function, phases[p].self, i, 0);
            }
        }
        return;
    }
    std::lock_guard<std::mutex> lock(owner_);
    next_ = phases;
    end_ = phases + count;
    finished_.store(false, std::memory_order_relaxed);
    advance(0);
    uint32_t generation = generation_of(stretches_[0].ticket.load(std::memory_order_relaxed)) - 1;
    while (!finished_.load(std::memory_order_acquire)) {
        work(0, generation);
        wait([&] {
            return finished_.load(std::memory_order_acquire) || opened_since(0, generation);
        });
    }
}

void Pool::call(void (*function)(const void*, int64_t, int), const void* self, int64_t chunk,
                int worker) const {
    const char* flag = flag_.load(std::memory_order_relaxed);
    if (!flag || !__atomic_load_n(flag, __ATOMIC_RELAXED)) function(self, chunk, worker);
}

// A phase later than `generation` is open. A worker looks at its own stretch only: looking at those
// that others claim from would slow them down.
bool Pool::opened_since(int worker, uint32_t generation) const {
    const uint64_t ticket =
        stretches_[static_cast<size_t>(worker)].ticket.load(std::memory_order_acquire);
    return chunk_of(ticket) != kClosed && generation_of(ticket) != generation;
}

// Claims and runs one chunk; false when the stretch has none left.
bool Pool::work_one(Stretch& stretch, int worker) {
    uint64_t ticket = stretch.ticket.load(std::memory_order_acquire);
    for (;;) {
        // The other fields are changed only while the ticket is closed, so a claim made with fields
        // that do not belong to `ticket` fails the exchange.
        const uint32_t end = stretch.end.load(std::memory_order_acquire);
        const auto function = stretch.function.load(std::memory_order_acquire);
        const void* self = stretch.self.load(std::memory_order_acquire);
        if (chunk_of(ticket) >= end) return false;
        if (stretch.ticket.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                                 std::memory_order_acquire)) {
            call(function, self, chunk_of(ticket), worker);
            return true;
        }
    }
}

// Does chunks until there are none. `generation` becomes that of the phase that was open at first;
// a phase cannot end while chunks are done and not reported.
void Pool::work(int worker, uint32_t& generation) {
    const auto first = static_cast<size_t>(worker), count = stretches_.size();
    const uint64_t seen = stretches_[first].ticket.load(std::memory_order_acquire);
    int64_t done = 0;
    for (size_t i = 0; i < count; i++) {
        while (work_one(stretches_[(first + i) % count], worker)) done++;
    }
    if (chunk_of(seen) != kClosed) generation = generation_of(seen);
    if (done && pending_.fetch_sub(done, std::memory_order_acq_rel) == done) advance(worker);
}

// Opens the next phase that has work, or finishes the run. Called by whoever reported the last
// chunk.
void Pool::advance(int worker) {
    for (; next_ != end_ && next_->chunks <= 1; next_++) {
        if (next_->chunks == 1) call(next_->function, next_->self, 0, worker);
    }
    if (next_ == end_) {
        finished_.store(true, std::memory_order_release);
    } else {
        open(*next_++);
    }
    announce();
}

void Pool::open(const Phase& phase) {
    const uint64_t generation = static_cast<uint64_t>(++generation_) << 32;
    pending_.store(phase.chunks, std::memory_order_release);
    const int64_t count = threads_;
    for (int64_t w = 0; w < count; w++) {
        Stretch& stretch = stretches_[static_cast<size_t>(w)];
        stretch.ticket.store(generation | kClosed, std::memory_order_release);
        stretch.end.store(static_cast<uint32_t>(phase.chunks * (w + 1) / count),
                          std::memory_order_release);
        stretch.function.store(phase.function, std::memory_order_release);
        stretch.self.store(phase.self, std::memory_order_release);
        stretch.ticket.store(generation | static_cast<uint64_t>(phase.chunks * w / count),
                             std::memory_order_release);
    }
}

// After a phase was opened, a run finished or the stop set: wakes those who sleep.
void Pool::announce() {
    epoch_.fetch_add(1);  // also orders what was stored before against the look at the sleepers
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
    uint32_t generation = 0;
    while (!stop_.load(std::memory_order_acquire)) {
        work(worker, generation);
        wait([&] {
            return stop_.load(std::memory_order_acquire) || opened_since(worker, generation);
        });
    }
}

}  // namespace ktchat
