// The types that have repacked tiles, by their number in enum ggml_type. A new type is a line here,
// a packer, and a struct in tile16_types.inc.h.

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

template <class Type, class Format>
constexpr Tile16Type ik_type(int number, size_t bytes, PackBlock pack = pack_ik<Format>) {
    return {number,          Format::kCols,       bytes, pack, tile16_kernel<Type>,
            Format::kPrefix, row_to_float<Format>};
}

template <class Type, class Format>
constexpr Tile16Type trellis_type(int number, size_t bytes) {
    return {number,          Format::kCols,                bytes, pack_trellis<Format>,
            tile16_kernel<Type>, Format::kPrefix, trellis_row_to_float<Format>};
}

constexpr Tile16Type kTile16Types[] = {
    {2, 32, 18, pack_q4_0, tile16_kernel<TypeQ4_0>},
    {6, 32, 22, pack_q5_0, tile16_kernel<TypeQ5_0>},
    {8, 32, 34, pack_q8_0, tile16_kernel<TypeQ8_0>},
    {10, 256, 84, pack_q2_k, tile16_kernel<TypeQ2_K>},
    {11, 256, 110, pack_q3_k, tile16_kernel<TypeQ3_K>},
    {12, 256, 144, pack_q4_k, tile16_kernel<TypeQ4_K>},
    {13, 256, 176, pack_q5_k, tile16_kernel<TypeQ5_K>},
    {14, 256, 210, pack_q6_k, tile16_kernel<TypeQ6_K>},
    {20, 32, 18, pack_q4_0, tile16_kernel<TypeIQ4_NL>},
    {23, 256, 136, pack_iq4_xs, tile16_kernel<TypeIQ4_XS>},
    {39, 32, 17, pack_mxfp4, tile16_kernel<TypeMXFP4>},
    // ik_llama.cpp's
    ik_type<TypeQ6_0, FormatQ6_0>(133, 26),
    ik_type<TypeIQ2_K, FormatIQ2_K>(137, 76),
    ik_type<TypeIQ3_K, FormatIQ3_K>(138, 110),
    ik_type<TypeIQ4_K, FormatIQ4_K>(139, 144),
    ik_type<TypeIQ5_K, FormatIQ5_K>(140, 176),
    ik_type<TypeIQ6_K, FormatIQ6_K>(141, 212),
    ik_type<TypeIQ4_KS, FormatIQ4_KS>(144, 136),
    ik_type<TypeIQ2_KS, FormatIQ2_KS>(145, 70),
    ik_type<TypeIQ4_KSS, FormatIQ4_KSS>(146, 128, pack_iq4_kss),
    ik_type<TypeIQ5_KS, FormatIQ5_KS>(152, 168),
    ik_type<TypeIQ3_KS, FormatIQ3_KS>(156, 102),
    ik_type<TypeIQ2_KL, FormatIQ2_KL>(157, 86, pack_iq2_kl),
    trellis_type<TypeIQ2_KT, FormatIQ2_KT>(153, 68),
    trellis_type<TypeIQ3_KT, FormatIQ3_KT>(154, 100),
    trellis_type<TypeIQ4_KT, FormatIQ4_KT>(155, 128),
    trellis_type<TypeIQ1_KT, FormatIQ1_KT>(158, 56),
};

const Tile16Type* find_tile16_type(int type) {
    for (const Tile16Type& each : kTile16Types) {
        if (each.type == type) return &each;
    }
    return nullptr;
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
