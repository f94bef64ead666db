// How many threads a process may keep busy: its affinity, one thread a core, and the quota of its container.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>

#include "pool.hpp"

namespace loquent {
namespace {

/// Cores among the processors that this process may run on; two hardware threads of a core count once, as they share
/// the units that products keep busy.
int allowed_cores() {
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        std::set<std::string> cores;
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (!CPU_ISSET(cpu, &allowed)) continue;
            std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
            std::string siblings;
            if (!(file >> siblings)) siblings = "only " + std::to_string(cpu);
            cores.insert(siblings);
        }
        return std::max(1, (int)cores.size());
    }
#endif
    return std::max(1, (int)sysconf(_SC_NPROCESSORS_ONLN));
}

/// The quota of one control group in processors, infinite where it has none.
double quota(const std::string& group) {
    double allowance = 0, period = 0;
    std::string word;
    std::ifstream unified(group + "/cpu.max");
    if (unified >> word >> period) return word == "max" || period <= 0 ? INFINITY : std::atof(word.c_str()) / period;
    std::ifstream first(group + "/cpu.cfs_quota_us"), second(group + "/cpu.cfs_period_us");
    if (first >> allowance && second >> period && allowance > 0 && period > 0) return allowance / period;
    return INFINITY;
}

/// The least quota of the process's control group and those around it.
double container_quota() {
    double least = std::min(quota("/sys/fs/cgroup"), quota("/sys/fs/cgroup/cpu"));
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const auto colon = line.find(':', line.find(':') + 1);
        if (colon == std::string::npos) continue;
        std::string path = line.substr(colon + 1);
        const bool unified = line.rfind("0::", 0) == 0;
        if (!unified && line.find("cpu") == std::string::npos) continue;
        for (; path.size() > 1; path.resize(std::max<size_t>(path.rfind('/'), 0)))
            least = std::min(least, quota((unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu") + path));
    }
    return least;
}

}  // namespace

int usable_threads() { return std::max(1, (int)std::min<double>(allowed_cores(), std::ceil(container_quota()))); }

}  // namespace loquent
