// Cycles of the kernels with data in the caches, beside a loop of FMAs that two units finish in
// half a cycle each: a shared machine's clock and neighbours are the same for both.
//
//   g++ -std=gnu++17 -O3 -fno-math-errno -fno-trapping-math -ffp-contract=fast -mavx2 -mfma -mf16c
//       -mbmi2 -Ikernels/cpu/src tests/bench/cycles.cpp -o /tmp/cycles && /tmp/cycles
//
// For AVX-512 VNNI also -DKTCHAT_ISA=avx512vnni -mavx512{f,bw,dq,vl,vnni} and
// -mprefer-vector-width=512.
#ifndef KTCHAT_ISA
#define KTCHAT_ISA avx2
#endif
#define KTCHAT_ISA_NAME "cycles"
#include "isa_kernels.inc.h"

#include <cstdio>
#include <cstdlib>
#include <vector>
#include <x86intrin.h>

namespace ktchat {
Matrix::~Matrix() {}
}  // namespace ktchat

using namespace ktchat;
using namespace ktchat::KTCHAT_ISA;

namespace {

void multiply_adds() {
    __m256 sums[10] = {};
    const __m256 x = _mm256_set1_ps(0.5f);
    for (int i = 0; i < 800; i++) {
#pragma GCC unroll 10
        for (int k = 0; k < 10; k++) asm volatile("vfmadd231ps %1,%1,%0" : "+x"(sums[k]) : "x"(x));
    }
}

template <class Body>
double ticks(const Body& body) {
    unsigned long long best = ~0ull;
    for (int i = 0; i < 100; i++) {
        const unsigned long long start = __rdtsc();
        body();
        const unsigned long long taken = __rdtsc() - start;
        best = taken < best ? taken : best;
    }
    return static_cast<double>(best);
}

template <class Body>
double cycles(const Body& body) {
    const double before = ticks(multiply_adds), taken = ticks(body), after = ticks(multiply_adds);
    return taken / ((before < after ? before : after) / 4000);
}

float random_float() { return static_cast<float>(std::rand() % 2001 - 1000) / 1000.0f; }

// A product of 32 rows and 2048 columns.
void product_cycles(const Tile16Type& type, const char* name, int tokens) {
    constexpr int kRows = 32, kCols = 2048;
    Matrix m;
    m.cols = kCols;
    m.row_bytes = type.row_block * static_cast<size_t>(kCols / type.cols);
    std::vector<uint8_t> w(m.row_bytes * kRows + 16384);
    for (uint8_t& byte : w) byte = static_cast<uint8_t>((std::rand() >> 5 & 0x0b) | 0x30);
    std::vector<std::vector<uint8_t>> rows(static_cast<size_t>(tokens));
    std::vector<const void*> x;
    for (auto& row : rows) {
        std::vector<float> values(kCols);
        for (float& value : values) value = random_float();
        row.resize(kCols / kActivationGroup * kActivationGroupBytes);
        quantise_tile16_row(values.data(), row.data(), kCols);
        x.push_back(row.data());
    }
    std::vector<float> y(static_cast<size_t>(kRows * tokens));
    const auto run = [&] { type.kernel(m, w.data(), kRows, nullptr, x.data(), tokens, y.data()); };
    const double taken = cycles(run), products = double{kRows} * kCols * tokens;
    std::printf("%-7s %2d tokens: %5.1f products a cycle, %5.2f bytes of weights\n", name, tokens,
                products / taken, static_cast<double>(m.row_bytes) * kRows / taken);
}

// Attention of `rows` query rows over 1024 positions; values of 0: part of the keys.
void attention_cycles(const char* name, int key, int value, int rows, bool latent, bool eight_bits) {
    constexpr int kLength = 1024, kPage = 32, kPages = kLength / kPage;
    const KvFormat format = eight_bits ? KvFormat{1, 32, 127, 16900000} : KvFormat{2, 128, 8191, 262000};
    const auto page_bytes = [&](int features) {
        const int blocks = (features + format.block - 1) / format.block;
        return static_cast<size_t>(kPage * (padded(features) * format.bytes + 2 * blocks) + 63) / 64 * 64;
    };
    struct alignas(64) Line {
        uint8_t bytes[64];
    };
    std::vector<Line> keys(kPages * page_bytes(key) / 64), values(kPages * page_bytes(value) / 64);
    std::vector<int32_t> pages;
    for (int i = 0; i < kPages; i++) pages.push_back((i * 7 + 3) % kPages);
    std::vector<float> q(static_cast<size_t>(rows * key)), maxima(64), sums(64), row(1024);
    for (int i = 0; i < kLength; i++) {
        for (float& each : row) each = random_float();
        append_row(format, row.data(), key, keys[0].bytes + i / kPage * page_bytes(key), kPage, i % kPage, false);
        append_row(format, row.data(), value, values[0].bytes + i / kPage * page_bytes(value), kPage, i % kPage,
                   true);
    }
    for (float& each : q) each = random_float();
    const std::vector<int> firsts(64, 0), limits(64, kLength);
    std::vector<const float*> queries;
    for (int r = 0; r < rows; r++) queries.push_back(&q[static_cast<size_t>(r * key)]);
    std::vector<Line> scratch(attention_scratch(rows, key, value, format, latent) / 16 + 1);
    std::vector<Line> outputs(static_cast<size_t>(rows * padded(value) / 16));

    AttentionTile tile{};
    tile.queries = queries.data();
    tile.firsts = firsts.data();
    tile.limits = limits.data();
    tile.rows = rows;
    tile.scale = 0.1f;
    tile.format = &format;
    tile.keys = keys[0].bytes;
    tile.values = latent ? nullptr : values[0].bytes;
    tile.key_page_stride = page_bytes(key);
    tile.value_page_stride = page_bytes(value);
    tile.pages = pages.data();
    tile.page_size = kPage;
    tile.key = key;
    tile.value = value;
    tile.end = kLength;
    tile.scratch = reinterpret_cast<float*>(scratch.data());
    tile.outputs = reinterpret_cast<float*>(outputs.data());
    tile.maxima = maxima.data();
    tile.sums = sums.data();
    const double taken = cycles([&] { attention_tile(tile); }) / kLength;
    std::printf("%-24s %2d bits %7.1f cycles a position, %4.1f products a cycle\n", name, eight_bits ? 8 : 16,
                taken, rows * (key + value) / taken);
}

}  // namespace

int main() {
    for (const bool eight_bits : {false, true}) {
        attention_cycles("decode, 8 x 128", 128, 128, 8, false, eight_bits);
        attention_cycles("prefill, 64 x 128", 128, 128, 64, false, eight_bits);
        attention_cycles("latent decode, 16 x 576", 576, 512, 16, true, eight_bits);
        attention_cycles("latent prefill, 64 x 576", 576, 512, 64, true, eight_bits);
    }
    const struct {
        const char* name;
        int type;
    } kinds[] = {{"Q4_K", 12},    {"Q5_K", 13},    {"Q6_K", 14},   {"IQ4_XS", 23},  {"Q8_0", 8},
                 {"MXFP4", 39},   {"IQ1_S", 19},   {"IQ1_M", 29},  {"IQ2_XXS", 16}, {"IQ2_XS", 17},
                 {"IQ2_S", 22},   {"IQ3_XXS", 18}, {"IQ3_S", 21},  {"Q4_1", 3},     {"Q5_1", 7},
                 {"TQ1_0", 34},   {"TQ2_0", 35},   {"NVFP4", 40},  {"Q1_0", 41},    {"Q2_0", 42}};
    for (const int tokens : {1, 4, 32, 64}) {
        for (const auto& kind : kinds) product_cycles(*find_tile16_type(kind.type), kind.name, tokens);
    }
}
