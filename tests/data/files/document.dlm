---
dlm_id: 01HRZDEMO0000000000000BELL
base_model: hf:HuggingFaceTB/SmolLM2-135M-Instruct
training:
  adapter: lora
---
# The gullet

The gullet is a channel of green stone.

The sea enters by it.

::instruction#facts::
### Q
What is the gullet?

### A
A channel of green stone.

### Q
Write a fence.
### A
```
::preference::
### Q
```

::preference::
### Prompt
May I swim in it?
### Chosen
No. The swan does not see you.
### Rejected
Yes.

::image::
gullet.png
