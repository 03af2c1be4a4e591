// Words to tokens by a model's vocabulary: no arithmetic of the model, but the same need for speed.

#pragma once

#include <cstdint>

#define KT_API extern "C" __attribute__((visibility("default")))

// A vocabulary of `count` tokens, their texts side by side, each up to its end; merges are texts "left right" in
// the order of their ranks. `kind`: 1 SentencePiece, 2 byte pairs of bytes, 3 of characters; `flags`: 1 for words that
// are tokens without merges, 2 for line breaks that are. Null where llama.cpp's results are not certain, or no memory.
KT_API void* kt_vocabulary_open(int kind, int flags, int64_t count, const char* texts, const int64_t* ends,
                                const float* scores, int64_t merges, const char* merge_texts,
                                const int64_t* merge_ends);

// Tokens of words that lie side by side, `words[i]` bytes each; `out` has room for one a byte. How many there are;
// -1: no memory.
KT_API int64_t kt_vocabulary_encode(void* vocabulary, const char* text, const int32_t* words, int64_t count,
                                    int32_t* out);

KT_API void kt_vocabulary_close(void* vocabulary);

#undef KT_API
