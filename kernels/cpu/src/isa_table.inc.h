// The kernels of this instruction set, in the order of `struct Kernels`.

namespace ktchat::KTCHAT_ISA {
namespace {

const Kernels kTable = {
    KTCHAT_ISA_NAME,
    float_tile<F32>,
    float_tile<F16>,
    float_tile<BF16>,
    find_tile16_type,
    quantise_tile16_row,
    quantise_tile16_part,
    rms_norm,
    norm_add,
    soft_cap,
    {swiglu, clamped_swiglu, geglu},
    add_scaled,
    dot,
    softmax,
    sigmoid,
    rotate,
    from_narrow<F16>,
    from_narrow<BF16>,
    append_row,
    attention_scratch,
    padded,
    attention_tile,
    attention_merge,
    short_convolution,
    unit,
    delta_products,
    delta_steps,
    delta_chunk,
    gated_norm,
    sigmoid_gate,
};

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
