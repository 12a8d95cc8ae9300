"""Further queries beside a question: what a model proposes, what the question's own grammar gives, and what the passages of the
first look lead to. The question itself is always searched, and its ranking fused with theirs."""
