// Many short runs of the thread pool, for TSan: phases of odd sizes that read what the one before
// wrote, with pauses in which the threads fall asleep.
#include "pool.h"

#include <unistd.h>

#include <cstdio>
#include <vector>

int main() {
    constexpr int64_t kSize = 1000;
    ktchat::Pool pool(4, {});
    std::vector<int64_t> first(kSize), second(kSize);
    for (int64_t round = 0; round < 50000; round++) {
        const int64_t chunks = 1 + round % 50;
        int64_t total = 0;
        const auto fill = [&](int64_t chunk, int) {
            for (int64_t i = chunk; i < kSize; i += chunks) first[i] = i + round;
        };
        const auto nothing = [&](int64_t, int) { total = -1; };
        const auto reverse = [&](int64_t chunk, int) {
            for (int64_t i = chunk; i < kSize; i += chunks) second[i] = first[kSize - 1 - i] + 1;
        };
        const auto add = [&](int64_t, int) {
            for (int64_t value : second) total += value;
        };
        pool.run({ktchat::phase(chunks, fill), ktchat::phase(0, nothing),
                  ktchat::phase(chunks, reverse), ktchat::phase(1, add)});
        if (total != kSize * (kSize - 1) / 2 + kSize * (round + 1)) {
            std::printf("round %ld: wrong sum %ld\n", long(round), long(total));
            return 1;
        }
        if (round % 4000 == 0) usleep(5000);
    }
}
