// Rows of the types of ik_llama.cpp as float32: an embedding's.

#include "tile16.h"

#include <cstring>

namespace ktchat::KTCHAT_ISA {
namespace {

struct FileBytes {
    const uint8_t* block;
    int operator()(int64_t i) const { return block[i]; }
};

inline float stored_scale(const uint8_t* from, int bytes) {
    uint16_t half;
    float whole;
    std::memcpy(&half, from, 2);
    if (bytes == 2) return half_to_float(half);
    std::memcpy(&whole, from, 4);
    return whole;
}

// In the order of ik_llama.cpp: the product of both scales is rounded first.
template <class Format>
void row_to_float(const void* row, float* y, int64_t cols) {
    const auto* block = static_cast<const uint8_t*>(row) + Format::kPrefix;
    float d = Format::kPrefix ? stored_scale(static_cast<const uint8_t*>(row), Format::kPrefix) : 0;
    for (int64_t c = 0; c < cols; c += Format::kCols) {
        uint8_t q[Format::kCols];
        Format::read(block, q);
        if (Format::kScale) d = stored_scale(block, 2);
        const FileBytes bytes{block};
        for (int g = 0; g < Format::kCols / Format::kGroup; g++) {
            const float scale = d * static_cast<float>(Format::whole(bytes, g));
            const int moved = Format::moved(bytes, g);
            for (int i = 0; i < Format::kGroup; i++) {
                *y++ = scale * Format::value(q[g * Format::kGroup + i], moved);
            }
        }
        block += Format::kHead + Format::kCodes;
    }
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
