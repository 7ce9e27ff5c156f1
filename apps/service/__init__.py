"""Jobs: taken in, written down, worked on in processes of their own, told of as they go. No HTTP and no pages here."""
