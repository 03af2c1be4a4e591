"""What models read while they are verified: short passages of many kinds and languages."""

PASSAGES = (
    "A mixture-of-experts model keeps many small networks in every layer and asks only a few of them"
    " for each token. The router looks at the token, scores all experts, and sends it to the best"
    " ones; their answers are weighted and added.",
    "The lighthouse keeper wound the clock twice a day, once before breakfast and once after the last"
    " ship had gone by. Nobody had asked him to. He liked the sound of it, and the small certainty"
    " that something on the island would go on as it had begun.",
    "Question: what is the capital of France, and which river runs through it?\nAnswer: Paris, and"
    " the Seine.\nQuestion: name three primes above 100.\nAnswer: 101, 103 and 107.",
    "def route(scores, top_k=8):\n    chosen = sorted(range(len(scores)), key=scores.__getitem__)\n"
    "    total = sum(scores[i] for i in chosen[-top_k:])\n"
    "    return {i: scores[i] / total for i in chosen[-top_k:]}\n",
    "Die Katze saß auf der Fensterbank und sah dem Regen zu. Gegen Abend hörte er auf, und über den"
    " Dächern stand ein schmaler heller Streifen, als hätte jemand eine Tür nicht ganz geschlossen.",
    "今天天气很好，我们去公园散步吧。湖边的柳树已经绿了，孩子们在草地上放风筝，老人坐在长椅上下棋。"
    "走累了就在茶馆里歇一会儿，喝一杯龙井。",
    "En 1969, deux hommes ont marché sur la Lune. On se souvient de la phrase, moins du silence qui"
    " l'a suivie : pendant quelques secondes, toute la salle de contrôle a oublié de respirer.",
    "#include <stdio.h>\n\nint main(void)\n{\n    unsigned long a = 0, b = 1;\n"
    '    for (int i = 0; i < 20; i++) {\n        printf("%lu\\n", a);\n'
    "        unsigned long next = a + b;\n        a = b;\n        b = next;\n    }\n    return 0;\n}\n",
    "El mercado abre a las siete, pero los pescadores llegan antes. Discuten los precios en voz baja,"
    " toman café en vasos pequeños y esperan a que la primera clienta pregunte si las sardinas son"
    " de hoy.",
    "Поезд опаздывал на сорок минут, и на платформе постепенно все перезнакомились. Кто-то достал"
    " термос, кто-то рассказал анекдот, а девочка в красной шапке считала вагоны товарного состава.",
    "駅前の小さな本屋は、雨の日だけ少し混む。店主は誰にも声をかけず、奥の机で古い地図を直している。"
    "私は詩集を一冊買って、傘を忘れて帰った。",
    '{"order": 1042, "customer": {"name": "A. Novak", "city": "Brno"}, "items": [{"sku": "B-17",'
    ' "count": 3, "price": 4.5}, {"sku": "C-02", "count": 1, "price": 129.0}], "paid": true,'
    ' "note": null}',
    "SELECT city, COUNT(*) AS orders, ROUND(AVG(total), 2) AS mean\nFROM orders JOIN customers USING"
    " (customer_id)\nWHERE placed_at >= '2024-01-01' AND status <> 'cancelled'\nGROUP BY city\n"
    "HAVING COUNT(*) > 10\nORDER BY mean DESC\nLIMIT 20;\n",
    "User: My bread never rises properly. What am I doing wrong?\nAssistant: Most often the dough is"
    " too cold or the yeast too old. Stir the yeast into warm water with a pinch of sugar: if it"
    " does not foam within ten minutes, buy a new packet.\nUser: And if it foams?\nAssistant: Then"
    " give the dough more time.",
    "Let f be continuous on [a, b] and differentiable on (a, b). Then there is a point c in (a, b)"
    " with f'(c) = (f(b) - f(a)) / (b - a). To see why, subtract the chord from f and apply Rolle's"
    " theorem to what remains.",
    "\\begin{equation}\n  \\nabla \\times \\mathbf{B} = \\mu_0 \\mathbf{J} + \\mu_0 \\varepsilon_0"
    " \\frac{\\partial \\mathbf{E}}{\\partial t}\n\\end{equation}\nwhere $\\mathbf{J}$ is the current"
    " density and $c^2 = 1 / (\\mu_0 \\varepsilon_0)$.",
    "여름이 끝나갈 무렵 할머니는 마당에 고추를 널었다. 바람이 불면 마른 잎이 바스락거렸고, 고양이는"
    " 그늘을 따라 조금씩 자리를 옮겼다.",
    "عاد الصياد قبل الفجر بقليل، وكان البحر هادئا كأنه ينتظر. وضع السلة على الرصيف وجلس يشرب الشاي"
    " ويعد النجوم التي بقيت.",
    "| country | capital | population |\n|---|---|---:|\n| Norway | Oslo | 5,550,203 |\n| Kenya |"
    " Nairobi | 55,100,586 |\n| Chile | Santiago | 19,629,590 |\n| Nepal | Kathmandu | 30,896,590 |\n",
    "3.14159 × 2 = 6.28318; 17 + 25 = 42; 144 / 12 = 12; 2^10 = 1024; 99 - 101 = -2; 7 × 8 = 56;"
    " 1/3 = 0.33333; sqrt(2) = 1.41421; 365 × 24 = 8760; 10! = 3628800; 1000 mod 7 = 6.",
    "O trem parou entre duas estações e as luzes se apagaram. Durante um minuto ninguém disse nada;"
    " depois uma criança começou a rir, e o vagão inteiro riu com ela.",
    '#!/bin/sh\nset -eu\nfor file in *.log; do\n    lines=$(wc -l < "$file")\n'
    '    if [ "$lines" -gt 1000 ]; then\n        gzip -9 "$file" && echo "packed $file ($lines'
    ' lines)"\n    fi\ndone\n',
    "2024-03-07T08:12:44Z INFO  worker-3 started, 8 threads\n2024-03-07T08:12:45Z WARN  queue is 91 %"
    " full\n2024-03-07T08:12:51Z ERROR request 7f3a timed out after 5000 ms\n"
    "2024-03-07T08:12:51Z INFO  request 7f3a retried (1 of 3)\n",
    "Nonno teneva le lettere in una scatola di biscotti, legate con uno spago. Non le leggeva mai:"
    " diceva che gli bastava sapere che c'erano, come il vino buono in cantina.",
    "The tenant shall pay the rent on or before the fifth day of each month. If any part of it remains"
    " unpaid for fourteen days after written notice, the landlord may terminate this agreement,"
    " without prejudice to any other right.",
    "Pociąg do Gdańska odjeżdża z peronu czwartego. Pani z małym psem pyta konduktora, czy jest wagon"
    " restauracyjny; on odpowiada, że jest, ale zupa skończyła się już w Warszawie.",
    "गाँव के बाहर एक पुराना कुआँ था, जिसका पानी गर्मियों में भी ठंडा रहता था। शाम को औरतें वहाँ मिलतीं और दिन"
    " भर की बातें करतीं।",
    "Roast the aubergines at 220 °C for 40 minutes, until the skin is black and the flesh soft. Scrape"
    " it out, mash with 2 tbsp tahini, 1 clove of garlic, the juice of half a lemon and a good pinch"
    " of salt. Serves 4.",
    "impl<T: Ord> Heap<T> {\n    pub fn push(&mut self, item: T) {\n        self.items.push(item);\n"
    "        let mut i = self.items.len() - 1;\n        while i > 0 && self.items[i] > self.items[(i"
    " - 1) / 2] {\n            self.items.swap(i, (i - 1) / 2);\n            i = (i - 1) / 2;\n        }\n"
    "    }\n}\n",
    "Bờ sông buổi sáng phủ đầy sương. Những chiếc thuyền nhỏ chở hoa và trái cây lặng lẽ trôi về phía"
    " chợ nổi, tiếng mái chèo nghe rõ từng nhịp.",
    "Το νησί είχε δύο καφενεία και έναν δρόμο. Το χειμώνα άνοιγε μόνο το ένα, και τότε όλοι ήξεραν"
    " πού θα βρουν όλους.",
    "Dear Ms Okafor,\n\nThank you for your note of 12 May. We are sorry that the parcel arrived"
    " damaged. A replacement left our warehouse today and should reach you by Friday; please keep the"
    " old one for the courier.\n\nKind regards,\nThe returns department",
    "Snow on the railway sleepers,\nsnow on the signal arm;\nthe last train went at seven\nand did the"
    " dark no harm.\nWe walked along the cutting\nwith lanterns, two and two,\nand no one said the"
    " reason\nfor everybody knew.",
    "Mitochondria have a genome of their own: in humans a ring of 16,569 base pairs that codes for 13"
    " proteins, 22 tRNAs and 2 rRNAs. It is inherited from the mother and mutates about ten times as"
    " fast as the DNA of the nucleus.",
    '<form action="/search" method="get">\n  <label for="q">Search</label>\n  <input id="q" name="q"'
    ' type="search" required maxlength="80">\n  <button class="primary">Go</button>\n</form>\n',
    "Köyün tek telefonu bakkaldaydı. Çaldığında herkes susar, bakkal ahizeyi kaldırır ve kime"
    " olduğunu yüksek sesle söylerdi; öyle ki hiçbir haber uzun süre gizli kalmazdı.",
)
"""36: prose, dialogue, code, data, mathematics, verse; in 17 languages."""
