// The part of ggml's C ABI that we call through pointers found at run time. The declarations are
// our own: a mismatch with the library is caught when a matrix is made (`Context::make_matrix`
// compares block sizes), not at compile time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ktchat::ggml {

using ToFloat = void (*)(const void* x, float* y, int64_t count);
using FromFloat = void (*)(const float* x, void* y, int64_t count);
using VecDot = void (*)(int n, float* s, size_t bs, const void* x, size_t bx, const void* y,
                        size_t by, int nrc);

struct TypeTraits {  // struct ggml_type_traits
    const char* type_name;
    int64_t block;
    int64_t block_interleave;
    size_t bytes;
    bool is_quantized;
    ToFloat to_float;
    FromFloat from_float_ref;
};

struct CpuTypeTraits {  // struct ggml_type_traits_cpu
    FromFloat from_float;
    VecDot vec_dot;
    int vec_dot_type;
    int64_t rows;
};

using GetTypeTraits = const TypeTraits* (*)(int type);
using GetCpuTypeTraits = const CpuTypeTraits* (*)(int type);

// enum ggml_type, as far as we name types in native code.
enum Type : int { F32 = 0, F16 = 1, Q8_0 = 8, Q8_1 = 9, Q8_K = 15, BF16 = 30 };

}  // namespace ktchat::ggml
