// The functions of the C ABI with the kinds of their arguments: the one table that both sides take
// them from. kernels/cpu/op_table.py reads these lines for ctypes. api.cpp checks each against its
// function when it is compiled, and makes the replay of recorded ops from them.
//
// An argument's kind is one character:
//   p pointer   n int64   i int   z size_t   f float
//   s the KV slots of new tokens: cache, layer, pages, page count, start, n (pnpnnn)
//   r the recurrent state of a layer: state, layer (pn)
//   w one product of kt_norm_linear: weight, output, bias or null (ppp)
//
// OP: an op of kernels/ops.py, kt_<name>(context, arguments...), which returns a Status. Its number
// in a recorded pass is its place in this list. An op has at most one f. To add one, write its
// function in api.cpp and a line here.
//
// FUNCTION: any other, with the kind of its result (v: void) first.

#ifndef OP
#define OP(name, arguments)
#endif
#ifndef FUNCTION
#define FUNCTION(name, result, arguments)
#endif

OP(embed, "ppnfp")
OP(zeros, "pn")
OP(norm, "pnnpfp")
OP(norm_add, "pnnpfpp")
OP(norm_linear, "pnnpfnwwww")
OP(linear_add, "pnppp")
OP(soft_cap, "pnf")
OP(rope_append, "pnppppiifps")
OP(attention, "pnfsnpp")
OP(latent_append, "pnppfps")
OP(latent_attention, "pnfppsp")
OP(route, "pnpfpppppppp")
OP(moe_add, "pnppnpppppppn")
OP(ffn_add, "pnpppppn")
OP(delta_net, "pnpppppppfrp")
OP(sigmoid_gate, "ppn")

FUNCTION(supported, "i", "p")
FUNCTION(open, "p", "pipi")
FUNCTION(close, "v", "p")
FUNCTION(heed, "v", "pp")
FUNCTION(matrix, "p", "pinznnnpi")
FUNCTION(has_tiles, "i", "i")
FUNCTION(matrix_free, "v", "p")
FUNCTION(cache, "p", "innnnnnn")
FUNCTION(cache_data, "p", "pi")
FUNCTION(cache_head_bytes, "n", "pi")
FUNCTION(cache_free, "v", "p")
FUNCTION(state, "p", "nnnnnnni")
FUNCTION(state_free, "v", "p")
FUNCTION(state_clear, "v", "pp")
FUNCTION(state_copy, "v", "ppnn")
FUNCTION(state_read, "v", "pnnpp")
FUNCTION(state_slot, "p", "pn")
FUNCTION(state_slot_floats, "n", "p")
FUNCTION(keep_owners, "v", "pi")
FUNCTION(owners, "n", "ppn")
FUNCTION(softmax, "v", "ppn")
FUNCTION(replay, "i", "ppnp")
FUNCTION(serve_requests, "i", "pnn")
FUNCTION(serve_request, "v", "p")
FUNCTION(raise_flag, "v", "p")
FUNCTION(vocabulary_open, "p", "iinpppnpp")
FUNCTION(vocabulary_encode, "n", "pppnp")
FUNCTION(vocabulary_close, "v", "p")

#undef OP
#undef FUNCTION
