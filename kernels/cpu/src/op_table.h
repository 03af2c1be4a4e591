// The table of ops.inc.h at compile time: the kinds of a function's arguments, and calls of
// recorded ops.
#pragma once

#include <cstdint>
#include <tuple>
#include <type_traits>

#include "context.h"

namespace ktchat {

// The kind of a parameter or result of type T; '?' is none of the table's.
template <class T>
constexpr char kind_of() {
    if (std::is_pointer_v<T>) return 'p';
    if (std::is_same_v<T, int64_t>) return 'n';
    if (std::is_same_v<T, int>) return 'i';
    if (std::is_same_v<T, size_t>) return 'z';
    if (std::is_same_v<T, float>) return 'f';
    if (std::is_void_v<T>) return 'v';
    return '?';
}

// What a kind that stands for several arguments stands for, else null.
constexpr const char* expanded(char kind) {
    return kind == 's' ? "pnpnnn" : kind == 'w' ? "ppp" : kind == 'r' ? "pn" : nullptr;
}

// How many arguments these kinds are; `floats`: only the floats of them.
constexpr int count_arguments(const char* kinds, bool floats = false) {
    int count = 0;
    for (; *kinds; kinds++) {
        const char* many = expanded(*kinds);
        count += many ? count_arguments(many, floats) : !floats || *kinds == 'f';
    }
    return count;
}

// Whether `own`, one character an argument, is what `kinds` says.
constexpr bool same_kinds(const char* own, const char* kinds) {
    for (; *kinds; kinds++) {
        const char single[] = {*kinds, '\0'};
        const char* many = expanded(*kinds);
        for (const char* wanted = many ? many : single; *wanted; wanted++) {
            if (*own++ != *wanted) return false;
        }
    }
    return *own == '\0';
}

template <class Result, class... Arguments>
constexpr bool has_kinds(Result (*)(Arguments...), char result, const char* kinds) {
    const char own[] = {kind_of<Arguments>()..., '\0'};
    return kind_of<Result>() == result && same_kinds(own, kinds);
}

template <class... Arguments>
constexpr bool is_op(int (*)(Context*, Arguments...), const char* kinds) {
    const char own[] = {kind_of<Arguments>()..., '\0'};
    return same_kinds(own, kinds) && count_arguments(kinds, true) <= 1;
}

// The most arguments that an op has after the context.
constexpr int most_arguments() {
    int most = 0;
#define OP(name, arguments) \
    most = count_arguments(arguments) > most ? count_arguments(arguments) : most;
#include "ops.inc.h"
    return most;
}

// A recorded call of one op: its arguments after the context in their order, the float apart.
// kernels/cpu/step.py writes it.
struct Command {
    int64_t op;
    double scalar;
    int64_t a[most_arguments()];
};

template <class T>
T take_argument(const int64_t*& next, double scalar) {
    if constexpr (std::is_same_v<T, float>) {
        return static_cast<float>(scalar);
    } else if constexpr (std::is_pointer_v<T>) {
        return reinterpret_cast<T>(*next++);
    } else {
        return static_cast<T>(*next++);
    }
}

template <class... Arguments>
int call_recorded(int (*op)(Context*, Arguments...), Context* c, const Command& command) {
    const int64_t* next = command.a;
    // In braces, which are evaluated from left to right.
    const std::tuple<Arguments...> arguments{take_argument<Arguments>(next, command.scalar)...};
    return std::apply([&](Arguments... each) { return op(c, each...); }, arguments);
}

}  // namespace ktchat
