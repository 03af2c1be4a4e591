// The types that have repacked tiles, by their number in enum ggml_type. A new type is a line here,
// a packer, and a struct in tile16_types.inc.h.

#include "tile16.h"

namespace ktchat::KTCHAT_ISA {
namespace {

template <class Type, PackBlock Pack, size_t kBytes>
constexpr Tile16Type tile_type(int number) {
    return {number, Type::kCols, kBytes, Pack, tile16_kernel<Type>,
            0,      tile_row_to_float<Type, Pack, kBytes>};
}

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
    tile_type<TypeQ4_0, pack_q4_0, 18>(2),
    tile_type<TypeQ4_1, pack_q4_1, 20>(3),
    tile_type<TypeQ5_0, pack_q5_0, 22>(6),
    tile_type<TypeQ5_1, pack_q5_1, 24>(7),
    tile_type<TypeQ8_0, pack_q8_0, 34>(8),
    tile_type<TypeQ2_K, pack_q2_k, 84>(10),
    tile_type<TypeQ3_K, pack_q3_k, 110>(11),
    tile_type<TypeQ4_K, pack_q4_k, 144>(12),
    tile_type<TypeQ5_K, pack_q5_k, 176>(13),
    tile_type<TypeQ6_K, pack_q6_k, 210>(14),
    tile_type<TypeIQ2_XXS, pack_iq2_xxs, 66>(16),
    tile_type<TypeIQ2_XS, pack_iq2_xs, 74>(17),
    tile_type<TypeIQ3_XXS, pack_iq3_xxs, 98>(18),
    tile_type<TypeIQ1_S, pack_iq1_s, 50>(19),
    tile_type<TypeIQ4_NL, pack_q4_0, 18>(20),
    tile_type<TypeIQ3_S, pack_iq3_s, 110>(21),
    tile_type<TypeIQ2_S, pack_iq2_s, 82>(22),
    tile_type<TypeIQ4_XS, pack_iq4_xs, 136>(23),
    tile_type<TypeIQ1_M, pack_iq1_m, 56>(29),
    tile_type<TypeTQ1_0, pack_tq1_0, 54>(34),
    tile_type<TypeTQ2_0, pack_tq2_0, 66>(35),
    tile_type<TypeMXFP4, pack_mxfp4, 17>(39),
    tile_type<TypeNVFP4, pack_nvfp4, 36>(40),
    tile_type<TypeQ1_0, pack_q1_0, 18>(41),
    tile_type<TypeQ2_0, pack_q2_0, 18>(42),
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
