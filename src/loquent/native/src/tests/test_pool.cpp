// The pool: every share once, whoever asks; nested loops, several callers, fork, and no busy core when idle.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "pool.hpp"

namespace {

using loquent::Pool;

/// Whether a loop of `shares` shares runs each of them once.
bool runs_each_once(Pool& pool, int64_t shares) {
    std::vector<std::atomic<int>> counts(shares);
    pool.run(shares, [&](int64_t share) { counts[share] += 1; });
    for (const auto& count : counts)
        if (count != 1) return false;
    return true;
}

void each_share_runs_once() {
    for (int threads : {1, 2, 3, 8}) {
        Pool pool(threads);
        CHECK(pool.threads() == threads);
        for (int64_t shares : {0, 1, 2, 3, 7, 1000}) CHECK(runs_each_once(pool, shares));
    }
    Pool pool(3);
    for (int i = 0; i < 20000; ++i) CHECK(runs_each_once(pool, 1 + i % 5));
}

void loops_within_loops_and_beside_each_other() {
    Pool pool(3);
    std::atomic<int64_t> total{0};
    pool.run(10, [&](int64_t) { pool.run(10, [&](int64_t inner) { total += inner; }); });
    CHECK(total == 450);
    std::vector<std::thread> callers;
    std::atomic<bool> right{true};
    for (int caller = 0; caller < 4; ++caller)
        callers.emplace_back([&] {
            for (int i = 0; i < 2000; ++i)
                if (!runs_each_once(pool, 6)) right = false;
        });
    for (auto& caller : callers) caller.join();
    CHECK(right);
}

void a_forked_child_has_threads_of_its_own() {
    if (std::getenv("LOQUENT_NO_FORK")) return;  // qemu-user cannot fork a process with several threads
    CHECK(runs_each_once(Pool::shared(), 100));
    const pid_t child = fork();
    if (child == 0) _exit(runs_each_once(Pool::shared(), 100) ? 0 : 1);
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(runs_each_once(Pool::shared(), 100));
}

void threads_can_be_chosen() {
    Pool::set_threads(3);
    CHECK(Pool::shared().threads() == 3 && runs_each_once(Pool::shared(), 50));
    Pool::set_threads(0);
    CHECK(Pool::shared().threads() >= 1 && runs_each_once(Pool::shared(), 50));
    CHECK_THROWS(Pool::set_threads(-1), std::invalid_argument);
}

double cpu_seconds() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) { return (double)time.tv_sec + 1e-6 * (double)time.tv_usec; };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void idle_threads_sleep() {
    Pool pool(4);
    CHECK(runs_each_once(pool, 100));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const double before = cpu_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    CHECK(cpu_seconds() - before < 0.05);
    CHECK(runs_each_once(pool, 100));
}

}  // namespace

int main() {
    each_share_runs_once();
    loops_within_loops_and_beside_each_other();
    a_forked_child_has_threads_of_its_own();
    threads_can_be_chosen();
    idle_threads_sleep();
    return loquent::test::report();
}
