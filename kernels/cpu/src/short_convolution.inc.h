// The causal convolution over the last few tokens, each feature by itself, and SiLU.

namespace ktchat::KTCHAT_ISA {
namespace {

constexpr int64_t kStrip = 128;  // features whose taps are put side by side at a time

// Features first .. first + width - 1.
template <int K>
void convolve_strip(const ShortConvolution& c, int64_t first, int64_t width) {
    alignas(64) float taps[K][kStrip];
    const float* own = c.taps + first * K;
    for (int64_t f = 0; f < width; f++) {
        for (int j = 0; j < K; j++) taps[j][f] = own[f * K + j];
    }
    // The features of token t; the K - 1 tokens before the first are in the state.
    const auto token = [&](int64_t t) {
        return (t < 0 ? c.state + (t + K - 1) * c.stride : c.x + t * c.stride) + first;
    };
    for (int64_t t = 0; t < c.n; t++) {
        const float* rows[K];
        for (int j = 0; j < K; j++) rows[j] = token(t - K + 1 + j);
        float* y = c.y + t * c.y_stride + first;
        sweep(width, [&](int64_t i, int part) {
            Vec acc = take(rows[0] + i, part) * take(taps[0] + i, part);
            for (int j = 1; j < K; j++) acc += take(rows[j] + i, part) * take(taps[j] + i, part);
            put(y + i, acc / (1.0f + exp(-acc)), part);
        });
    }
    for (int64_t j = 0; j < K - 1; j++) {  // what is read here lies behind what is written
        std::memcpy(c.state + j * c.stride + first, token(c.n - K + 1 + j),
                    static_cast<size_t>(width) * sizeof(float));
    }
}

template <int K>
void convolve(const ShortConvolution& c) {
    for (int64_t first = 0; first < c.features; first += kStrip) {
        const int64_t rest = c.features - first;
        convolve_strip<K>(c, first, rest < kStrip ? rest : kStrip);
    }
}

void short_convolution(const ShortConvolution& c) {
    static_assert(kMostTaps == 4);
    constexpr void (*by_kernel[])(const ShortConvolution&) = {convolve<1>, convolve<2>, convolve<3>,
                                                              convolve<4>};
    by_kernel[c.kernel - 1](c);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
