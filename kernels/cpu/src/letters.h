// A device's questions to the host: which routed experts to compute for one token of one layer, and the
// answer. The arrays lie in memory that both sides see; kernels/cpu/letters.py describes the struct.
#pragma once

#include "experts.h"

namespace ktchat {

struct Letter {
    Context* context;
    const Matrix* gate;
    const Matrix* up;
    const Matrix* down;
    const float* x;          // (hidden)
    const int32_t* ids;      // (top_k), as the router chose
    const float* weights;    // (top_k)
    const int32_t* slots;    // (experts): where an expert stands on the device, or -1; null: none does
    int32_t* here;           // (top_k): the ids that are the host's, else -1
    float* answer;           // (hidden)
    int32_t* asked;          // 1: the question is there
    int32_t* answered;       // 1: the answer is there
    int64_t top_k;
    int64_t hidden;
    int64_t status;          // of the last answer
    int64_t begun;           // when it was begun and done, in ns of the steady clock
    int64_t done;
};

// Computes the answer from what the letter asks. Says nothing to the device.
void answer(Letter& letter);

}  // namespace ktchat
