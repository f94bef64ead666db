// A pool of threads that take shares of a loop as they become free; it knows nothing of what the loop computes.
#pragma once

#include <atomic>
#include <cstdint>

namespace loquent {

/// Runs loops on several threads. Shares are taken dynamically, so that a thread that has lost its core to another
/// process delays only the share it holds. Idle threads spin briefly (a step's loops follow each other within
/// microseconds), then sleep. Safe after fork(): the child starts threads of its own.
class Pool {
public:
    /// A pool of `threads` in all, the caller's included.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const;

    /// Call `body(share)` for each share in [0, shares), in any order and on any thread; returns when all are done.
    /// Where the pool is busy with another caller's loop, or there is one share, the caller's thread does it alone.
    template <class Body>
    void run(int64_t shares, const Body& body) {
        run(shares, [](const void* context, int64_t share) { (*static_cast<const Body*>(context))(share); }, &body);
    }

    /// The process's pool: as many threads as `usable_threads()`, or as `LOQUENT_THREADS` says.
    static Pool& shared();

    /// Give the shared pool another number of threads (0: the default); waits for a loop that runs.
    static void set_threads(int threads);

private:
    using Function = void (*)(const void* context, int64_t share);
    void run(int64_t shares, Function function, const void* context);
    struct State;
    State& current();
    std::atomic<State*> state_;  // one that was replaced lives as long as the pool: a late caller may look at it
};

/// How many threads this process may keep busy: its CPU affinity, limited by the container's quota (cgroup `cpu.max`).
int usable_threads();

}  // namespace loquent
