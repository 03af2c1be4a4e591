// Requests of a device to the host: compute these routed experts for one token of one layer. The
// arrays lie in memory that both sides see; kernels/cpu/expert_requests.py describes the struct to
// ctypes.
#pragma once

#include "experts.h"

namespace ktchat {

struct ExpertRequest {
    Context* context;
    const Matrix* gate;
    const Matrix* up;
    const Matrix* down;
    const Matrix* gate_bias;  // null: none
    const Matrix* up_bias;
    const Matrix* down_bias;
    const float* x;          // (hidden)
    const int32_t* ids;      // (top_k), as the router chose
    const float* weights;    // (top_k)
    const int32_t* slots;    // (experts): an expert's slot on the device, or -1; null: none has one
    int32_t* host_ids;       // (top_k): the ids that are the host's, else -1
    float* result;           // (hidden)
    int32_t* submitted;      // 1: x, ids and weights are there
    int32_t* completed;      // 1: the result is there
    int64_t top_k;
    int64_t hidden;
    int64_t activation;
    int64_t status;          // of the last result
    int64_t begun;           // when it was begun and done, in ns of the steady clock
    int64_t done;
};

// Computes the result. Says nothing to the device.
void compute(ExpertRequest& request);

}  // namespace ktchat

// Serves `count` requests in the order in which the device submits them. Each is completed, so that
// the device never waits for ever: after a failure, or `patience` ns without a request, with what
// is there. Returns the first failure; kLate where the device submitted nothing.
extern "C" __attribute__((visibility("default"))) int kt_serve_requests(
    ktchat::ExpertRequest* const* requests, int64_t count, int64_t patience);

// Serves one request, for a device that calls the host in the order of its work (a CUDA host
// function).
extern "C" __attribute__((visibility("default"))) void kt_serve_request(void* request);

// Such a function that only raises an int32 flag: a device's driver is tried with it.
extern "C" __attribute__((visibility("default"))) void kt_raise_flag(void* flag);
