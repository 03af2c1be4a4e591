// Words to tokens, as llama.cpp makes them of the same vocabulary (src/llama-vocab.cpp there): byte pairs are
// merged by rank, SentencePiece's pairs by the score of the token that they give; ties go to the left.
//
// Every text that a vocabulary or its merges name is a number here (`Names`), so that a pair is one 64-bit key.

#include "vocabulary.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <queue>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr int32_t kNone = -1;

enum Kind : int { kSentencePiece = 1, kBytes = 2, kCharacters = 3 };

enum Flags : int {
    kWholeWords = 1,  // a word that is a token needs no merges
    kWholeLineBreaks = 2,  // nor does one of line breaks alone
};

uint64_t hash_of(std::string_view text) {
    uint64_t hash = 0x9e3779b97f4a7c15u ^ text.size();
    size_t at = 0;
    for (; at + 8 <= text.size(); at += 8) {
        uint64_t word;
        std::memcpy(&word, text.data() + at, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    uint64_t word = 0;
    std::memcpy(&word, text.data() + at, text.size() - at);
    hash = (hash ^ word) * 0xc4ceb9fe1a85ec53u;
    return hash ^ (hash >> 29);
}

size_t power_of_two(size_t least) {
    size_t size = 16;
    while (size < least) size *= 2;
    return size;
}

// Texts by number, in the order in which they came.
class Names {
  public:
    void reserve(size_t count, size_t bytes) {
        slots_.assign(power_of_two(2 * count), kNone);
        ends_.reserve(count + 1);
        bytes_.reserve(bytes);
    }

    int32_t find(std::string_view text) const {
        const size_t mask = slots_.size() - 1;
        for (size_t at = hash_of(text) & mask; slots_[at] != kNone; at = (at + 1) & mask) {
            if ((*this)[slots_[at]] == text) return slots_[at];
        }
        return kNone;
    }

    // The number of a text, a new one where it has none.
    int32_t add(std::string_view text) {
        const size_t mask = slots_.size() - 1;
        size_t at = hash_of(text) & mask;
        for (; slots_[at] != kNone; at = (at + 1) & mask) {
            if ((*this)[slots_[at]] == text) return slots_[at];
        }
        const int32_t number = static_cast<int32_t>(ends_.size()) - 1;
        bytes_.append(text);
        ends_.push_back(bytes_.size());
        slots_[at] = number;
        if (2 * ends_.size() > slots_.size()) grow();
        return number;
    }

    std::string_view operator[](int32_t number) const {
        const size_t begin = ends_[number];
        return {bytes_.data() + begin, ends_[number + 1] - begin};
    }

    size_t size() const { return ends_.size() - 1; }

  private:
    void grow() {
        slots_.assign(2 * slots_.size(), kNone);
        const size_t mask = slots_.size() - 1;
        for (size_t number = 0; number < size(); ++number) {
            size_t at = hash_of((*this)[static_cast<int32_t>(number)]) & mask;
            while (slots_[at] != kNone) at = (at + 1) & mask;
            slots_[at] = static_cast<int32_t>(number);
        }
    }

    std::string bytes_;
    std::vector<size_t> ends_ = {0};
    std::vector<int32_t> slots_ = std::vector<int32_t>(16, kNone);
};

struct Merge {
    uint64_t pair;
    int32_t rank = kNone;
    int32_t result;
};

// Merges by the numbers of their halves.
class Merges {
  public:
    void reserve(size_t count) { slots_.assign(power_of_two(2 * count), Merge{}); }

    // The first of two with the same halves counts.
    void add(int32_t left, int32_t right, int32_t rank, int32_t result) {
        Merge& slot = slots_[place(key(left, right))];
        if (slot.rank == kNone) slot = {key(left, right), rank, result};
    }

    const Merge* find(int32_t left, int32_t right) const {
        if (left == kNone || right == kNone) return nullptr;
        const Merge& slot = slots_[place(key(left, right))];
        return slot.rank == kNone ? nullptr : &slot;
    }

  private:
    static uint64_t key(int32_t left, int32_t right) {
        return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    }

    size_t place(uint64_t pair) const {
        const size_t mask = slots_.size() - 1;
        uint64_t hash = pair * 0xff51afd7ed558ccdu;
        size_t at = (hash ^ (hash >> 32)) & mask;
        while (slots_[at].rank != kNone && slots_[at].pair != pair) at = (at + 1) & mask;
        return at;
    }

    std::vector<Merge> slots_ = std::vector<Merge>(16);
};

struct Symbol {
    int32_t previous, next;
    int32_t begin, bytes;  // none where it went into the one before it
    int32_t name;
};

struct Candidate {
    double order;  // a rank, or a score below nought
    int32_t left, right;
    int32_t left_bytes, right_bytes;  // as they were: a symbol only grows
    int32_t result;

    bool operator<(const Candidate& other) const {  // the first to go is the largest
        return order > other.order || (order == other.order && left > other.left);
    }
};

size_t character_bytes(unsigned char first) {
    static constexpr unsigned char kBytesOf[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
    return kBytesOf[first >> 4];
}

// GPT-2's characters for bytes: those that can be printed are themselves, the others count from U+0100.
std::array<int32_t, 512> bytes_of_characters() {
    std::array<int32_t, 512> bytes;
    bytes.fill(kNone);
    int32_t next = 256;
    for (int32_t byte = 0; byte < 256; ++byte) {
        const bool printed = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
        bytes[printed ? byte : next++] = byte;
    }
    return bytes;
}

// The bytes that a text of such characters stands for; false where it has another character.
bool decode(std::string_view text, std::string& out) {
    static const std::array<int32_t, 512> kByteOf = bytes_of_characters();
    out.clear();
    for (size_t at = 0; at < text.size();) {
        uint32_t code = static_cast<unsigned char>(text[at]);
        const size_t bytes = character_bytes(static_cast<unsigned char>(code));
        if (bytes > 2 || at + bytes > text.size()) return false;
        if (bytes == 2) code = (code & 0x1f) << 6 | (static_cast<unsigned char>(text[at + 1]) & 0x3f);
        if (code >= kByteOf.size() || kByteOf[code] == kNone) return false;
        out.push_back(static_cast<char>(kByteOf[code]));
        at += bytes;
    }
    return true;
}

std::string_view entry(const char* texts, const int64_t* ends, int64_t number) {
    const int64_t begin = number ? ends[number - 1] : 0;
    const std::string_view text(texts + begin, ends[number] - begin);
    return text.substr(0, text.find('\0'));  // as llama.cpp reads it
}

class Vocabulary {
  public:
    // False where what llama.cpp makes of it is not certain.
    bool open(Kind kind, int flags, int64_t count, const char* texts, const int64_t* ends,
              const float* scores, int64_t merges, const char* merge_texts, const int64_t* merge_ends) {
        kind_ = kind;
        flags_ = flags;
        if (scores) scores_.assign(scores, scores + count);
        names_.reserve(count + 16, count ? ends[count - 1] : 0);
        std::string bytes;
        for (int64_t token = 0; token < count; ++token) {
            const std::string_view text = entry(texts, ends, token);
            if (kind == kBytes && !decode(text, bytes)) continue;  // no word is written so
            set_token(names_.add(kind == kBytes ? std::string_view(bytes) : text), static_cast<int32_t>(token));
        }
        return open_bytes() && (kind == kSentencePiece || open_merges(merges, merge_texts, merge_ends));
    }

    // Tokens of words that lie side by side, `words[i]` bytes each; `out` has room for one a byte.
    int64_t encode(const char* text, const int32_t* words, int64_t count, int32_t* out) {
        int32_t* begin = out;
        for (int64_t word = 0; word < count; text += words[word++]) {
            out = encode_word({text, static_cast<size_t>(words[word])}, out);
        }
        return out - begin;
    }

  private:
    void set_token(int32_t name, int32_t token) {
        if (token_of_.size() <= static_cast<size_t>(name)) token_of_.resize(name + 1, kNone);
        token_of_[name] = token;
    }

    int32_t token_of(int32_t name) const {
        return name == kNone || static_cast<size_t>(name) >= token_of_.size() ? kNone : token_of_[name];
    }

    bool open_bytes() {
        for (int32_t byte = 0; byte < 256; ++byte) {
            const char raw = static_cast<char>(byte);
            char named[7];
            std::snprintf(named, sizeof named, "<0x%02X>", byte);
            byte_names_[byte] = names_.find(kind_ == kBytes ? std::string_view(&raw, 1) : std::string_view(named));
            byte_tokens_[byte] = token_of(byte_names_[byte]);
            if (byte_tokens_[byte] == kNone) return false;
        }
        return true;
    }

    bool open_merges(int64_t count, const char* texts, const int64_t* ends) {
        merges_.reserve(count + 16);
        std::string left, right;
        for (int64_t rank = 0; rank < count; ++rank) {
            const std::string_view text = entry(texts, ends, rank);
            const size_t blank = text.find(' ', 1);
            if (blank == std::string_view::npos) return false;
            left = text.substr(0, blank);
            right = text.substr(blank + 1);
            if (right.find(' ') != std::string::npos) return false;
            if (kind_ == kBytes && !(decode(std::string(left), left) && decode(std::string(right), right))) return false;
            const int32_t first = names_.add(left), second = names_.add(right), result = names_.add(left + right);
            if (kind_ == kBytes && token_of(result) == kNone) return false;
            merges_.add(first, second, static_cast<int32_t>(rank), result);
        }
        return true;
    }

    int32_t* encode_word(std::string_view word, int32_t* out) {
        const bool whole = flags_ & kWholeWords ||
            (flags_ & kWholeLineBreaks && word.find_first_not_of('\n') == std::string_view::npos);
        if (const int32_t token = whole ? token_of(names_.find(word)) : kNone; token != kNone) {
            *out++ = token;
            return out;
        }
        split(word);
        for (size_t i = 1; i < symbols_.size(); ++i) consider(word, static_cast<int32_t>(i - 1), static_cast<int32_t>(i));
        while (!queue_.empty()) {
            const Candidate best = queue_.top();
            queue_.pop();
            Symbol& left = symbols_[best.left];
            Symbol& right = symbols_[best.right];
            if (left.bytes != best.left_bytes || right.bytes != best.right_bytes) continue;
            left.bytes += right.bytes;
            left.name = best.result;
            right.bytes = 0;
            left.next = right.next;
            if (right.next != kNone) symbols_[right.next].previous = best.left;
            consider(word, left.previous, best.left);
            consider(word, best.left, left.next);
        }
        for (int32_t i = symbols_.empty() ? kNone : 0; i != kNone; i = symbols_[i].next) {
            const Symbol& symbol = symbols_[i];
            if (const int32_t token = token_of(symbol.name); token != kNone) {
                *out++ = token;
                continue;
            }
            for (int32_t at = 0; at < symbol.bytes; ++at) {
                *out++ = byte_tokens_[static_cast<unsigned char>(word[symbol.begin + at])];
            }
        }
        return out;
    }

    void split(std::string_view word) {
        symbols_.clear();
        for (size_t at = 0; at < word.size();) {
            const unsigned char first = static_cast<unsigned char>(word[at]);
            const size_t bytes = kind_ == kBytes ? 1 : std::min(character_bytes(first), word.size() - at);
            const int32_t name = kind_ == kBytes ? byte_names_[first] : names_.find(word.substr(at, bytes));
            const int32_t index = static_cast<int32_t>(symbols_.size());
            const int32_t next = at + bytes == word.size() ? kNone : index + 1;
            symbols_.push_back({index - 1, next, static_cast<int32_t>(at), static_cast<int32_t>(bytes), name});
            at += bytes;
        }
    }

    // Two neighbours, if they can be one.
    void consider(std::string_view word, int32_t left, int32_t right) {
        if (left == kNone || right == kNone) return;
        const Symbol &a = symbols_[left], &b = symbols_[right];
        if (kind_ == kSentencePiece) {
            const int32_t name = names_.find(word.substr(a.begin, a.bytes + b.bytes));
            if (const int32_t token = token_of(name); token != kNone) {
                const double score = scores_.empty() ? 0.0 : static_cast<double>(scores_[token]);
                queue_.push({-score, left, right, a.bytes, b.bytes, name});
            }
        } else if (const Merge* merge = merges_.find(a.name, b.name)) {
            queue_.push({static_cast<double>(merge->rank), left, right, a.bytes, b.bytes, merge->result});
        }
    }

    Kind kind_ = kBytes;
    int flags_ = 0;
    Names names_;
    Merges merges_;
    std::vector<float> scores_;
    std::vector<int32_t> token_of_;
    std::array<int32_t, 256> byte_names_, byte_tokens_;
    std::vector<Symbol> symbols_;
    std::priority_queue<Candidate> queue_;
};

}  // namespace

void* kt_vocabulary_open(int kind, int flags, int64_t count, const char* texts, const int64_t* ends,
                         const float* scores, int64_t merges, const char* merge_texts,
                         const int64_t* merge_ends) {
    try {
        auto vocabulary = std::make_unique<Vocabulary>();
        const bool certain = vocabulary->open(static_cast<Kind>(kind), flags, count, texts, ends, scores, merges,
                                              merge_texts, merge_ends);
        return certain ? vocabulary.release() : nullptr;
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

int64_t kt_vocabulary_encode(void* vocabulary, const char* text, const int32_t* words, int64_t count,
                             int32_t* out) {
    try {
        return static_cast<Vocabulary*>(vocabulary)->encode(text, words, count, out);
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

void kt_vocabulary_close(void* vocabulary) { delete static_cast<Vocabulary*>(vocabulary); }
