// The pool's threads: how they wait, take shares, sleep, and survive fork().
#include "pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace loquent {
namespace {

using Clock = std::chrono::steady_clock;

// A step's loops follow each other within microseconds, and steps of large batches within 300; beyond this nothing is
// lost by sleeping.
constexpr auto kSpin = std::chrono::microseconds(500);
constexpr auto kWaitBeforeYield = std::chrono::microseconds(50);
constexpr uint64_t kShareBits = 32;
constexpr uint64_t kShareMask = (uint64_t{1} << kShareBits) - 1;

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

std::atomic<unsigned> forks{0};  // how often this process is a fork of one that had loaded this library

void count_forks() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
    (void)registered;
}

int default_threads() {
    const char* given = std::getenv("LOQUENT_THREADS");
    if (!given || !*given) return usable_threads();
    char* end = nullptr;
    const long threads = std::strtol(given, &end, 10);
    if (*end || threads < 1 || threads > 1024)
        throw std::invalid_argument(std::string("LOQUENT_THREADS=") + given + " must be a number from 1 to 1024.");
    return (int)threads;
}

}  // namespace

struct Pool::State {
    explicit State(int threads) : threads(threads), born(forks.load()) {}

    const int threads;
    const unsigned born;  // the count of forks when the threads were started: in another process there are none of them
    State* before = nullptr;  // the one that this replaced
    std::vector<std::thread> workers;
    bool short_of_threads = false;

    // The loop that runs. Whoever has taken a share of it may read the first three: it cannot end before that share.
    Function function = nullptr;
    const void* context = nullptr;
    int64_t shares = 0;
    std::atomic<int64_t> finished{0};
    // The number of the loop in the high half, how many of its shares are left in the low: one word, so that a thread
    // that was late for a loop can never take a share of it.
    alignas(64) std::atomic<uint64_t> ticket{0};

    alignas(64) std::atomic<bool> busy{false};
    std::atomic<int> sleepers{0};
    std::atomic<bool> stopping{false};
    std::mutex mutex;
    std::condition_variable wake;

    bool take_share() {
        uint64_t seen = ticket.load(std::memory_order_acquire);
        while (seen & kShareMask) {
            if (!ticket.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel)) continue;
            function(context, shares - (int64_t)(seen & kShareMask));
            finished.fetch_add(1, std::memory_order_release);
            return true;
        }
        return false;
    }

    bool something_to_do() const {
        return (ticket.load(std::memory_order_seq_cst) & kShareMask) || stopping.load(std::memory_order_acquire);
    }

    void work() {
        while (!stopping.load(std::memory_order_acquire)) {
            while (take_share()) {}
            const auto start = Clock::now();
            bool found = false;
            while (!(found = something_to_do()) && Clock::now() - start < kSpin)
                for (int i = 0; i < 16 && !(found = something_to_do()); ++i) relax();
            if (!found) sleep();
        }
    }

    void sleep() {
        std::unique_lock<std::mutex> lock(mutex);
        sleepers.fetch_add(1, std::memory_order_seq_cst);
        wake.wait(lock, [this] { return something_to_do(); });
        sleepers.fetch_sub(1, std::memory_order_seq_cst);
    }

    void rouse() {
        if (!sleepers.load(std::memory_order_seq_cst)) return;
        { std::lock_guard<std::mutex> lock(mutex); }  // whoever is about to sleep is asleep now, or has seen the work
        wake.notify_all();
    }

    void start() {
        try {
            while ((int)workers.size() < threads - 1 && !short_of_threads) workers.emplace_back([this] { work(); });
        } catch (const std::system_error&) {
            short_of_threads = true;  // the process may have no more; those that it has do the work
        }
    }

    void stop() {
        stopping.store(true, std::memory_order_seq_cst);
        rouse();
        for (auto& worker : workers) worker.join();
        workers.clear();
    }

    void wait_for_all() {
        const auto start = Clock::now();
        while (finished.load(std::memory_order_acquire) < shares) {
            for (int i = 0; i < 16 && finished.load(std::memory_order_acquire) < shares; ++i) relax();
            // Another process may have the core of the thread that we wait for, or this thread may be in its way.
            if (Clock::now() - start > kWaitBeforeYield) sched_yield();
        }
    }
};

Pool::Pool(int threads) : state_(new State(threads < 1 ? 1 : threads)) { count_forks(); }

Pool::~Pool() {
    for (State* state = state_.load(); state;) {
        State* const before = state->before;
        // The threads of a process that was forked, and whatever they held, stayed behind in it.
        if (state->born == forks.load()) {
            state->stop();
            delete state;
        }
        state = before;
    }
}

int Pool::threads() const { return state_.load(std::memory_order_acquire)->threads; }

Pool::State& Pool::current() {
    State* state = state_.load(std::memory_order_acquire);
    if (state->born == forks.load()) return *state;
    auto fresh = std::make_unique<State>(state->threads);
    fresh->before = state;
    // Several threads of a forked child may be here; the first one's is everybody's.
    if (state_.compare_exchange_strong(state, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
    return *state;
}

void Pool::run(int64_t shares, Function function, const void* context) {
    State& state = current();
    const bool alone = shares <= 1 || state.threads == 1 || shares >= (int64_t)kShareMask;
    if (alone || state.busy.exchange(true, std::memory_order_acquire)) {
        for (int64_t share = 0; share < shares; ++share) function(context, share);
        return;
    }
    state.start();
    state.function = function;
    state.context = context;
    state.shares = shares;
    state.finished.store(0, std::memory_order_relaxed);
    const uint64_t number = (state.ticket.load(std::memory_order_relaxed) >> kShareBits) + 1;
    state.ticket.store(number << kShareBits | (uint64_t)shares, std::memory_order_seq_cst);
    state.rouse();
    while (state.take_share()) {}
    state.wait_for_all();
    state.busy.store(false, std::memory_order_release);
}

Pool& Pool::shared() {
    // Never destroyed: a thread may be in the middle of a loop when the process ends.
    static Pool& pool = *new Pool(default_threads());
    return pool;
}

void Pool::set_threads(int threads) {
    if (threads < 0 || threads > 1024) throw std::invalid_argument("threads must be 0 (the default) or 1 to 1024.");
    auto fresh = std::make_unique<State>(threads ? threads : default_threads());
    Pool& pool = shared();
    // What is replaced stays busy for good: a caller that is late for it runs its loop alone.
    while (pool.current().busy.exchange(true, std::memory_order_acquire)) sched_yield();
    State* const before = pool.state_.load(std::memory_order_acquire);
    before->stop();
    fresh->before = before;
    pool.state_.store(fresh.release(), std::memory_order_release);
}

}  // namespace loquent
