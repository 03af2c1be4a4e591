// Recurrent layers: a gated delta net and its state. Shapes, layers and slots are checked by the
// caller.
#pragma once

#include "context.h"

namespace ktchat {

// kernels.recurrent.DeltaNet.
struct DeltaNet {
    int64_t key_heads;
    int64_t value_heads;
    int64_t key;
    int64_t value;
    int64_t kernel;
    bool tiled;

    int64_t conv_features() const { return 2 * key_heads * key + value_heads * value; }
    int64_t panels() const { return (value + kPanel - 1) / kPanel; }
    int64_t key_head(int64_t value_head) const {
        return tiled ? value_head % key_heads : value_head * key_heads / value_heads;
    }
};

// States of zeros, float32: (slots, layers), each the convolution's last tokens (kernel - 1,
// conv_features), then a matrix for every value head as (panels, key, kPanel). A slot is one
// stretch of memory; slot 0 is the current sequence's. Throws std::bad_alloc.
class RecurrentState {
public:
    RecurrentState(const DeltaNet& net, int64_t layers, int64_t slots);
    ~RecurrentState();
    RecurrentState(const RecurrentState&) = delete;
    RecurrentState& operator=(const RecurrentState&) = delete;

    float* conv(int64_t layer, int64_t slot = 0) const {
        return data_ + (slot * layers_ + layer) * layer_floats_;
    }
    float* matrix(int64_t layer, int64_t head, int64_t slot = 0) const {
        return conv(layer, slot) + conv_floats_ + head * net.panels() * net.key * kPanel;
    }

    void clear(Context& c);
    void copy(Context& c, int64_t source, int64_t target);
    // One layer of a slot as (kernel - 1, conv_features) and (value_heads, key, value).
    void read(int64_t layer, int64_t slot, float* conv_rows, float* matrices) const;
    int64_t slot_floats() const { return layers_ * layer_floats_; }

    const DeltaNet net;

private:
    const int64_t layers_;
    int64_t conv_floats_;  // rounded up to whole cache lines
    int64_t layer_floats_;
    size_t bytes_;
    float* data_;
};

// kernels.recurrent.DeltaNetWeights.
struct DeltaNetWeights {
    const float* conv;
    const float* a;
    const float* dt;
    const float* norm;
};

// qkv (n, conv_features), z (n, values), alpha and beta (n, value_heads), out (n, values).
struct DeltaNetTokens {
    const float* qkv;
    int64_t n;
    const float* z;
    const float* alpha;
    const float* beta;
    float* out;
};

void delta_net(Context& c, const DeltaNetTokens& tokens, const DeltaNetWeights& weights, float eps,
               const RecurrentState& state, int64_t layer);

// x *= sigmoid(gate) over `count` numbers.
void sigmoid_gate(Context& c, float* x, const float* gate, int64_t count);

}  // namespace ktchat
