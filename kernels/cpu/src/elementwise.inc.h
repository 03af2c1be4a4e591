// Norms, activations, rotary embedding, softmax and conversions over one row of features.

namespace ktchat::KTCHAT_ISA {
namespace {

// Calls body(offset, width) for whole vectors, then for the rest.
template <class Body>
inline void sweep(int64_t n, const Body& body) {
    int64_t i = 0;
    for (; i + W <= n; i += W) body(i, W);
    if (i < n) body(i, static_cast<int>(n - i));
}
inline Vec take(const float* p, int width) { return width == W ? load(p) : load_part(p, width); }
inline void put(float* p, Vec v, int width) {
    if (width == W) {
        store(p, v);
    } else {
        store_part(p, v, width);
    }
}

// Float32 lanes over 128 features, those blocks in float64.
double sum_of_squares(const float* x, int64_t n) {
    double squares = 0;
    for (int64_t begin = 0; begin < n; begin += 128) {
        const int64_t length = n - begin < 128 ? n - begin : 128;
        Vec acc = {};
        sweep(length, [&](int64_t i, int width) {
            const Vec v = take(x + begin + i, width);
            acc += v * v;
        });
        squares += static_cast<double>(sum(acc));
    }
    return squares;
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* y) {
    const double mean = sum_of_squares(x, n) / static_cast<double>(n);
    const float scale = static_cast<float>(1.0 / std::sqrt(mean + static_cast<double>(eps)));
    sweep(n, [&](int64_t i, int width) {
        put(y + i, take(x + i, width) * scale * take(weight + i, width), width);
    });
}

void norm_add(const float* x, const float* weight, float eps, float factor, int64_t n, float* y) {
    const double mean = sum_of_squares(x, n) / static_cast<double>(n);
    const float scale = static_cast<float>(1.0 / std::sqrt(mean + static_cast<double>(eps)));
    sweep(n, [&](int64_t i, int width) {
        const Vec normed = take(x + i, width) * scale * take(weight + i, width);
        put(y + i, (take(y + i, width) + normed) * factor, width);
    });
}

// tanh(x) = 1 - 2 / (1 + e^2x)
void soft_cap(float* x, float cap, int64_t n) {
    sweep(n, [&](int64_t i, int width) {
        const Vec twice = take(x + i, width) * (2.0f / cap);
        put(x + i, cap - 2.0f * cap / (1.0f + exp(twice)), width);
    });
}

void unit(float* x, float scale, float eps, int64_t n) {
    const double length = std::sqrt(sum_of_squares(x, n) + static_cast<double>(eps));
    const float factor = static_cast<float>(static_cast<double>(scale) / length);
    sweep(n, [&](int64_t i, int width) { put(x + i, take(x + i, width) * factor, width); });
}

void swiglu(float* gate, const float* up, int64_t n) {
    sweep(n, [&](int64_t i, int width) {
        const Vec g = take(gate + i, width);
        put(gate + i, g / (1.0f + exp(-g)) * take(up + i, width), width);
    });
}

// gelu(x) = x * sigmoid(2u) with u = sqrt(2 / pi) * (x + 0.044715 x^3), the tanh form.
void geglu(float* gate, const float* up, int64_t n) {
    const float twice = 1.5957691216057308f;
    sweep(n, [&](int64_t i, int width) {
        const Vec g = take(gate + i, width);
        const Vec u = g * (twice + twice * 0.044715f * g * g);
        put(gate + i, g / (1.0f + exp(-u)) * take(up + i, width), width);
    });
}

void clamped_swiglu(float* gate, const float* up, int64_t n) {
    const Vec limit = splat(7.0f);
    const float alpha = 1.702f;
    sweep(n, [&](int64_t i, int width) {
        const Vec g = -max(-take(gate + i, width), -limit);
        const Vec u = -max(-max(take(up + i, width), -limit), -limit);
        put(gate + i, g / (1.0f + exp(-alpha * g)) * (u + 1.0f), width);
    });
}

void add_scaled(float* y, float a, const float* x, int64_t n) {
    sweep(n, [&](int64_t i, int width) {
        put(y + i, take(y + i, width) + a * take(x + i, width), width);
    });
}

float dot(const float* a, const float* b, int64_t n) {
    Vec acc = {};
    sweep(n, [&](int64_t i, int width) { acc += take(a + i, width) * take(b + i, width); });
    return sum(acc);
}

void softmax(float* x, int64_t n) {
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    double total = 0;
    sweep(n, [&](int64_t i, int width) { put(x + i, exp(take(x + i, width) - top), width); });
    for (int64_t i = 0; i < n; i++) total += static_cast<double>(x[i]);
    const float scale = static_cast<float>(1.0 / total);
    for (int64_t i = 0; i < n; i++) x[i] *= scale;
}

void sigmoid(float* x, int64_t n) {
    sweep(n, [&](int64_t i, int width) {
        put(x + i, 1.0f / (1.0f + exp(-take(x + i, width))), width);
    });
}

void sigmoid_gate(float* x, const float* gate, int64_t n) {
    sweep(n, [&](int64_t i, int width) {
        put(x + i, take(x + i, width) / (1.0f + exp(-take(gate + i, width))), width);
    });
}

void gated_norm(const float* x, const float* weight, const float* gate, float eps, int64_t n,
                float* y) {
    rms_norm(x, weight, eps, n, y);
    sweep(n, [&](int64_t i, int width) {
        const Vec g = take(gate + i, width);
        put(y + i, g / (1.0f + exp(-g)) * take(y + i, width), width);
    });
}

void rotate(float* x, const float* cos, const float* sin, int64_t pairs, bool interleaved) {
    if (interleaved) {
        for (int64_t i = 0; i < pairs; i++) {
            const float a = x[2 * i], b = x[2 * i + 1];
            x[2 * i] = a * cos[i] - b * sin[i];
            x[2 * i + 1] = a * sin[i] + b * cos[i];
        }
        return;
    }
    float* second = x + pairs;
    sweep(pairs, [&](int64_t i, int width) {
        const Vec a = take(x + i, width), b = take(second + i, width);
        const Vec c = take(cos + i, width), s = take(sin + i, width);
        put(x + i, a * c - b * s, width);
        put(second + i, a * s + b * c, width);
    });
}

template <class Format>
void from_narrow(const uint16_t* x, float* y, int64_t n) {
    int64_t i = 0;
    for (; i + W <= n; i += W) store(y + i, Format::at(x + i));
    if (i < n) store_part(y + i, Format::part(x + i, n - i), n - i);
}

}  // namespace
}  // namespace ktchat::KTCHAT_ISA
